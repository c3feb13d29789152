"""Divides a transcript into sentences and paragraphs, as a person would write it down.

A paragraph ends where somebody else speaks or another language begins, at a pause, and where it has become long: the longer it
is, the shorter the pause after a sentence that ends it.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from whisperd.output.units import LONG_PAUSE_SECONDS, SENTENCE_COLUMNS_MAX, ends_sentence, is_finished, streams, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from whisperd.core.transcript import Transcript
    from whisperd.output.units import Unit

PARAGRAPH_COLUMNS = 900  # about 150 words of English; a sentence that ends here ends its paragraph without a pause


class Sentence(NamedTuple):
    """The units of one sentence of one speaker; at least one."""

    speaker: str | None
    units: tuple[Unit, ...]
    language: str | None = None  # where the recording has several

    @property
    def start(self) -> float:
        """In seconds."""
        return self.units[0].start

    @property
    def end(self) -> float:
        """In seconds."""
        return self.units[-1].end

    @property
    def text(self) -> str:
        """The sentence in one line."""
        return text_of(self.units)


class Paragraph(NamedTuple):
    """Sentences of one speaker; at least one."""

    sentences: tuple[Sentence, ...]

    @property
    def speaker(self) -> str | None:
        """Who speaks; None if speakers are not told apart."""
        return self.sentences[0].speaker

    @property
    def language(self) -> str | None:
        """The code of its language, where the recording has several."""
        return self.sentences[0].language

    @property
    def start(self) -> float:
        """In seconds."""
        return self.sentences[0].start

    @property
    def end(self) -> float:
        """In seconds."""
        return max(sentence.end for sentence in self.sentences)

    @property
    def text(self) -> str:
        """The paragraph in one line."""
        return text_of(unit for sentence in self.sentences for unit in sentence.units)


def paragraphs(transcript: Transcript, language: str) -> Iterator[Paragraph]:
    """Yield the paragraphs of a transcript in the order in which they begin; what is said at the same time is not mixed."""
    begun: list[Sentence] = []
    width = 0
    for sentence in sentences(transcript, language):
        if begun and _ends_paragraph(begun, sentence, width):
            yield Paragraph(tuple(begun))
            begun, width = [], 0
        begun.append(sentence)
        width += sum(unit.columns + len(unit.space) for unit in sentence.units)
    if begun:
        yield Paragraph(tuple(begun))


def sentences(transcript: Transcript, language: str) -> Iterator[Sentence]:
    """Yield the sentences of all speakers in the order in which they begin."""
    spoken = [
        Sentence(speaker, found, transcript.segments[found[0].segment].language)
        for speaker, units in streams(transcript, language).items()
        for same in _of_one_language(units, transcript)
        for found in _divided(same)
    ]
    yield from sorted(spoken, key=lambda sentence: sentence.start)  # stable, and a stream never goes backward


def _of_one_language(units: Sequence[Unit], transcript: Transcript) -> Iterator[Sequence[Unit]]:
    for _, same in itertools.groupby(units, key=lambda unit: transcript.segments[unit.segment].language):
        yield list(same)


def _divided(units: Sequence[Unit]) -> Iterator[tuple[Unit, ...]]:
    first = width = 0
    for index, unit in enumerate(units):
        width += unit.columns + len(unit.space)
        is_endless = width > SENTENCE_COLUMNS_MAX and (
            index + 1 < len(units) and units[index + 1].segment != unit.segment
        )
        if is_endless or ends_sentence(units, index):
            yield tuple(units[first : index + 1])
            first, width = index + 1, 0


def _ends_paragraph(begun: Sequence[Sentence], following: Sentence, width: int) -> bool:
    last = begun[-1]
    if last.speaker != following.speaker or last.language != following.language:
        return True
    pause = following.start - last.end
    if not is_finished(last.units[-1].text):
        return (
            pause > 0 or width >= PARAGRAPH_COLUMNS
        )  # a heading, words that were broken off, or no punctuation at all
    return pause >= LONG_PAUSE_SECONDS * (1 - width / PARAGRAPH_COLUMNS)
