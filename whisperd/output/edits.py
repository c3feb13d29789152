"""Puts what a person wrote on the transcript page in the place of segments, joined or split.

Words that stay keep their times; the others share the time of the words that they replace, by their width. A segment that a
person wrote is marked, so that nothing is changed in it later.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
from typing import TYPE_CHECKING, NamedTuple

from whisperd.core.display import printable
from whisperd.core.errors import CorrectionRefused
from whisperd.core.transcript import Word
from whisperd.output.units import columns, is_unspaced

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from whisperd.core.correction import Correction, SegmentChange
    from whisperd.core.transcript import Segment, Transcript

COMPARED_MAX = 1_000_000  # pairs of characters of two texts that are compared; what is longer counts as written anew
_SPACE = re.compile(r"\s")
_PIECE = re.compile(r"\s*\S+")


class TextPart(NamedTuple):
    """A part of the new text: its place there, and the word that stays, by its index among the old ones."""

    start: int
    end: int
    kept: int | None = None


def edit(transcript: Transcript, shown: Sequence[Segment], correction: Correction) -> tuple[Transcript, list[int]]:
    """Return the transcript with the changes of segments, and for each of its segments the index of the one it began as.

    Args:
        transcript: as it was recorded, with the new names of speakers.
        shown: the same segments as the page shows them, with replacements made.
        correction: what is changed.

    Raises:
        CorrectionRefused: there is no such segment or speaker; nothing is changed.
    """
    known = {segment.speaker for segment in transcript.segments if segment.speaker} | set(correction.new_speakers)
    for change in correction.segments:
        if change.last >= len(shown):
            raise CorrectionRefused(f"there is no segment {change.last} in this transcript of {len(shown)}")
        if change.speaker is not None and change.speaker not in known:
            raise CorrectionRefused(
                f"nobody is called {printable(change.speaker)} in this transcript",
                hint="a name that is not there yet must be one of new_speakers",
            )
    segments: list[Segment] = []
    origins: list[int] = []
    at = 0
    for (first, last), group in itertools.groupby(correction.segments, key=lambda change: (change.first, change.last)):
        parts = list(group)
        if parts[0].text is None:
            is_written = any(segment.is_edited for segment in shown[first : last + 1])
            made = [_joined((shown if is_written else transcript.segments)[first : last + 1])]
        elif parts[0].text.strip():
            made = _written(_joined(shown[first : last + 1]), [part.text or "" for part in parts])
        else:
            made = []
        segments += transcript.segments[at:first]
        origins += range(at, first)
        segments += map(_of_speaker, made, parts)
        origins += [first] * len(made)
        at = last + 1
    segments += transcript.segments[at:]
    origins += range(at, len(shown))
    text = "".join(segment.text for segment in segments)
    return dataclasses.replace(transcript, segments=tuple(segments), text=text), origins


def _of_speaker(segment: Segment, change: SegmentChange) -> Segment:
    return segment if change.speaker is None else dataclasses.replace(segment, speaker=change.speaker)


def _joined(segments: Sequence[Segment]) -> Segment:
    if len(segments) == 1:
        return segments[0]
    return dataclasses.replace(
        segments[0],
        start=min(segment.start for segment in segments),
        end=max(segment.end for segment in segments),
        text="".join(segment.text for segment in segments),
        tokens=tuple(token for segment in segments for token in segment.tokens),
        avg_logprob=min(segment.avg_logprob for segment in segments),
        words=_words_of(segments),
        is_edited=any(segment.is_edited for segment in segments),
        recorded=None,
    )


def _words_of(segments: Sequence[Segment]) -> tuple[Word, ...] | None:
    """The words of all; a segment without any counts as one word, where others have them."""
    if not any(segment.words for segment in segments):
        return None
    alone = (
        [Word(segment.start, segment.end, segment.text, 1.0)] if segment.text.strip() else [] for segment in segments
    )
    return tuple(word for segment, whole in zip(segments, alone, strict=True) for word in segment.words or whole)


def _written(segment: Segment, texts: Sequence[str]) -> list[Segment]:
    """The segments that a person wrote in place of one."""
    lead = " " if segment.text[:1].isspace() else ""
    texts = [" ".join(text.split()) for text in texts]
    texts = [f"{lead or ('' if is_unspaced(text) or not number else ' ')}{text}" for number, text in enumerate(texts)]
    if segment.words:
        timed = _with_times(segment, texts)
        words: list[tuple[Word, ...] | None] = [*_divided(timed, texts)]
        starts = [own[0].start if own else segment.start for own in words]
        ends = [own[-1].end if own else segment.end for own in words]
    else:
        words = [segment.words] * len(texts)
        edges = _shares(segment.start, segment.end, [columns(text) for text in texts])
        starts, ends = edges[:-1], edges[1:]
    starts[0], ends[-1] = segment.start, max(segment.end, segment.start)
    return [
        dataclasses.replace(
            segment,
            start=start,
            end=max(start, end),
            text=text,
            words=own,
            tokens=(),
            avg_logprob=0.0,
            is_edited=True,
            recorded=None,
        )
        for start, end, text, own in zip(starts, ends, texts, words, strict=True)
    ]


def _divided(words: Sequence[Word], texts: Sequence[str]) -> Iterator[tuple[Word, ...]]:
    """The words of each text; no word is in two texts."""
    left = list(words)
    for text in texts:
        own: list[Word] = []
        while left and sum(len(word.text) for word in own) < len(text):
            own.append(left.pop(0))
        yield tuple(own)


def _with_times(segment: Segment, texts: Sequence[str]) -> list[Word]:
    """The words of all texts that take the place of a segment with words."""
    text = "".join(texts)
    old = segment.words or ()
    found: list[Word] = []
    since, before = segment.start, -1
    groups = [[*group] for _, group in itertools.groupby(_pieces(old, texts), key=lambda part: part.kept is None)]
    for number, parts in enumerate(groups):
        kept = [part.kept for part in parts if part.kept is not None]
        pieces = [text[part.start : part.end] for part in parts]
        if kept:
            found += [dataclasses.replace(old[index], text=piece) for index, piece in zip(kept, pieces, strict=True)]
            before, since = kept[-1], old[kept[-1]].end
            continue
        after = len(old) if number + 1 == len(groups) else groups[number + 1][0].kept or 0
        gone = old[before + 1 : after]
        start = gone[0].start if gone else since
        end = gone[-1].end if gone else old[after].start if after < len(old) else segment.end
        edges = _shares(start, max(start, end), [columns(piece) for piece in pieces])
        found += [Word(*times, piece, 1.0) for times, piece in zip(itertools.pairwise(edges), pieces, strict=True)]
    return found


def _pieces(old: Sequence[Word], texts: Sequence[str]) -> Iterator[TextPart]:
    """Divide texts into words that stay and words that are new; each begins with the space before it."""
    text = "".join(texts)
    origin = _origins("".join(word.text for word in old), text)
    begins: dict[int, tuple[int, int]] = {}  # place of an old word, without space -> its index and length
    at = 0
    for index, (text_of_word, bare) in enumerate((each.text, each.text.strip()) for each in old):
        if bare:
            begins[at + text_of_word.index(bare)] = index, len(bare)
        at += len(text_of_word)
    offsets = itertools.accumulate(map(len, texts), initial=0)
    for start, end in (
        (offset + found.start(), offset + found.end())
        for offset, own_text in zip(offsets, texts, strict=False)
        for found in _PIECE.finditer(own_text)
    ):
        own: list[TextPart] = []
        place = start
        while place < end:
            inked = place + len(text[place:end]) - len(text[place:end].lstrip())
            word = begins.get(origin[inked])
            length = word[1] if word else 0
            expected = [*range(origin[inked], origin[inked] + length)]
            if word and inked + length <= end and origin[inked : inked + length] == expected:
                own.append(TextPart(place, inked + length, word[0]))
            elif own and own[-1].kept is None:
                own[-1] = own[-1]._replace(end=inked + 1)
            else:
                own.append(TextPart(place, inked + 1))
            place = own[-1].end
        is_whole = all(part.kept is not None for part in own)
        yield from own if is_whole or any(map(is_unspaced, text[start:end])) else [TextPart(start, end)]


def _origins(old: str, new: str) -> list[int]:
    """For each character of the new text its place in the old one; -1: it is new."""
    head = next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    head = max(
        (found.end() for found in _SPACE.finditer(old[:head])), default=0
    )  # within a word nothing is the same yet
    rest = min(len(old), len(new)) - head
    tail = next((at for at in range(rest) if old[-1 - at] != new[-1 - at]), rest)
    tail -= next((found.start() for found in _SPACE.finditer(old[len(old) - tail :])), tail)
    middle_old, middle_new = old[head : len(old) - tail], new[head : len(new) - tail]
    origin = [-1] * len(middle_new)
    if len(middle_old) * len(middle_new) <= COMPARED_MAX:
        for was, now, size in difflib.SequenceMatcher(
            None, middle_old, middle_new, autojunk=False
        ).get_matching_blocks():
            origin[now : now + size] = range(head + was, head + was + size)
    return [*range(head), *origin, *range(len(old) - tail, len(old))]


def _shares(start: float, end: float, widths: Sequence[int]) -> list[float]:
    """Divide a time by widths; returns all edges."""
    whole = max(1, sum(widths))
    return [start + (end - start) * width / whole for width in itertools.accumulate(widths, initial=0)]
