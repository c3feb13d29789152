"""Turns a transcript into the cues of subtitles: `layout: readable` by `subtitles.py`, `layout: raw` as openai-whisper does.

In raw cues the subtitle options act only where there are word timestamps, as in openai-whisper 20250625
(`whisper/utils.py`, with which the tests compare). Deliberate differences from it:

- A segment without words, where others have them, counts as one word, so that no text is lost.
- `-->` in the text becomes `->`, since it would look like the time line of a cue.
- A cue or word that shows nothing is left out.
- Cues start at 0 or later and at least 1 ms after the start of the one before, last at least 1 ms, and never overlap: the
  earlier one ends where the later one starts. WebVTT requires order and length (https://www.w3.org/TR/webvtt1/ section
  4.1), and players cannot show two cues at once.
- No cue holds words of two speakers.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from whisperd.core.transcript import Word
from whisperd.output.subtitles import arrange
from whisperd.output.text import has_words, milliseconds, one_line, speaker_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import Segment, Transcript
    from whisperd.output.subtitles import Subtitle
    from whisperd.output.units import Unit

LONG_PAUSE_SECONDS = 3.0  # between the starts of two words; ends a cue where max_line_width and max_line_count shape it
UNLIMITED = 1000  # characters in a line, words in a cue: what whisper uses for "no limit"

_ARROW = re.compile(r"-{2,}>")


class Cue(NamedTuple):
    """A text that is shown from one time to another, in milliseconds."""

    start: int
    end: int
    text: str


def lay_out(
    transcript: Transcript,
    options: OutputOptions,
    language: str,
    *,
    overlap: bool,
    escape: Callable[[str], str],
    label: Callable[[str | None], str],
) -> list[Cue]:
    """Return the cues of a transcript in the order of their starts.

    Args:
        transcript: with times of words or without.
        options: the layout, width and number of lines, words in a cue, and whether words are highlighted.
        language: of the text, a code such as `en`.
        overlap: readable cues of different speakers may be shown at the same time.
        escape: writes text so that the format shows it unchanged.
        label: what stands before the words of a speaker, if cues are raw or may overlap.
    """
    if options.layout == "raw":
        return _repaired(_cues(transcript, options, escape=escape, label=label))
    subtitles = arrange(transcript, options, language, overlap=overlap)
    found: list[Cue] = []
    for subtitle in subtitles:
        labels = [label(part.speaker) if overlap else part.label for part in subtitle.parts]
        if options.highlight_words and all(unit.probability is not None for unit in subtitle.units):
            found += _spotlights(subtitle, labels, escape)
        else:
            found.append(Cue(subtitle.start, subtitle.end, _text(subtitle, labels, escape)))
    return found


def _text(subtitle: Subtitle, labels: Iterable[str], escape: Callable[[str], str], marked: Unit | None = None) -> str:
    """The lines of a readable cue, with one of its units underlined."""
    lines = []
    for part, label in zip(subtitle.parts, labels, strict=True):
        shown = [
            "".join(
                f"{unit.space if index else ''}{_underlined(escape(unit.text)) if unit is marked else escape(unit.text)}"
                for index, unit in enumerate(line)
            )
            for line in part.lines
        ]
        lines.append(label + "\n".join(shown))
    return _ARROW.sub("->", "\n".join(lines))


def _spotlights(subtitle: Subtitle, labels: Sequence[str], escape: Callable[[str], str]) -> Iterator[Cue]:
    """One cue for each word of a readable cue, in which it is underlined, and one without a mark for each pause."""
    visible_until = subtitle.start
    for unit in sorted(subtitle.units, key=lambda unit: unit.start):
        start = min(max(milliseconds(unit.start), visible_until), subtitle.end)
        end = min(max(milliseconds(unit.end), start), subtitle.end)
        if end == start:
            continue
        if start > visible_until:
            yield Cue(visible_until, start, _text(subtitle, labels, escape))
        yield Cue(start, end, _text(subtitle, labels, escape, unit))
        visible_until = end
    if visible_until < subtitle.end:
        yield Cue(visible_until, subtitle.end, _text(subtitle, labels, escape))


def timestamp(time: int, decimal_mark: str, *, hours: bool = False) -> str:
    """Milliseconds as `00:01:02,345`; without the hours if there are none, unless they are asked for."""
    seconds, rest = divmod(time, 1000)
    minutes, seconds = divmod(seconds, 60)
    hour, minutes = divmod(minutes, 60)
    return f"{f'{hour:02d}:' if hours or hour else ''}{minutes:02d}:{seconds:02d}{decimal_mark}{rest:03d}"


def _cues(
    transcript: Transcript,
    options: OutputOptions,
    *,
    escape: Callable[[str], str],
    label: Callable[[str | None], str],
) -> Iterator[Cue]:
    if not has_words(transcript):
        for segment in transcript.segments:
            text = escape(one_line(segment.text).strip())
            text = label(segment.speaker) + text if text else ""
            yield Cue(milliseconds(segment.start), milliseconds(segment.end), text)
        return
    for speaker, words in _grouped(transcript.segments, options):
        texts = [escape(word.text) for word in words]
        if options.highlight_words:
            yield from (cue._replace(text=label(speaker) + cue.text) for cue in _highlighted(words, texts))
        else:
            text = label(speaker) + "".join(texts)
            yield Cue(milliseconds(words[0].start), milliseconds(words[-1].end), text)


def _grouped(segments: Iterable[Segment], options: OutputOptions) -> Iterator[tuple[str | None, list[Word]]]:
    """The speaker and the words of each cue; a word that opens a line has no space before it, but a line break from the second line on.

    Without both `max_line_width` and `max_line_count` a cue stays within one segment, and within `max_words_per_line`;
    with both, cues fill up across segments until they are full or a long pause comes.
    """
    width = options.max_line_width or UNLIMITED
    words_per_cue = options.max_words_per_line or UNLIMITED
    within_segment = options.max_line_width is None or options.max_line_count is None
    cue: list[Word] = []
    lines = length = 0
    speaker: str | None = None
    for segment in segments:
        for index, word in enumerate(_words(segment)):
            fits = length + len(word.text) <= width
            if cue and (
                segment.speaker != speaker
                or (within_segment and index % words_per_cue == 0)
                or (not within_segment and word.start - cue[-1].start > LONG_PAUSE_SECONDS)
                or (not fits and options.max_line_count is not None and lines >= options.max_line_count)
            ):
                yield speaker, cue
                cue = []
            speaker = segment.speaker
            if cue and fits:
                text = word.text
                length += len(text)
            else:
                line = word.text.strip()
                text = f"\n{line}" if cue else line
                lines = lines + 1 if cue else 1
                length = len(line) + (0 if cue else len(speaker_label(speaker)))
            cue.append(replace(word, text=text))
    if cue:
        yield speaker, cue


def _words(segment: Segment) -> list[Word]:
    words = segment.words or (Word(segment.start, segment.end, segment.text, probability=1.0),)
    return [replace(word, text=one_line(word.text)) for word in words if one_line(word.text).strip()]


def _highlighted(words: list[Word], texts: list[str]) -> Iterator[Cue]:
    """One cue for each word, in which it is underlined, and one without a mark for each gap between two words."""
    visible_until = milliseconds(words[0].start)
    for index, word in enumerate(words):
        start, end = milliseconds(word.start), milliseconds(word.end)
        if start > visible_until:
            yield Cue(visible_until, start, "".join(texts))
        yield Cue(start, end, "".join([*texts[:index], _underlined(texts[index]), *texts[index + 1 :]]))
        visible_until = end


def _underlined(text: str) -> str:
    word = text.lstrip()
    return f"{text[: len(text) - len(word)]}<u>{word}</u>"


def _repaired(cues: Iterable[Cue]) -> list[Cue]:
    """The cues that show something, in order, without overlap and at least 1 ms long."""
    repaired: list[Cue] = []
    for cue in cues:
        if not cue.text:
            continue
        start = max(cue.start, 0)
        if repaired:
            previous = repaired[-1]
            start = max(start, previous.start + 1)
            repaired[-1] = previous._replace(end=min(previous.end, start))
        repaired.append(Cue(start, max(cue.end, start + 1), _ARROW.sub("->", cue.text)))
    return repaired
