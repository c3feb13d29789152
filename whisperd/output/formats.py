"""A transcript as txt, srt, vtt, tsv and json: what the `whisper` command writes, byte for byte, minus its bugs.

Subtitle options act only where there are word timestamps, as in openai-whisper 20250625 (`whisper/utils.py`, the oracle
of the tests). Every deliberate difference from it:

- Words are used when any segment has them. whisper asks the first segment alone, and raises KeyError where it clears an
  empty first segment (its pull request 2780). A segment without words then stands as one word, so no text is lost, and
  in json either every segment has `words` or none has.
- A line break or control character in the text becomes a space (json keeps it, escaped), so that no text can end a cue,
  a line or a field, or talk to a terminal. A lone surrogate, which UTF-8 cannot hold, becomes U+FFFD.
- `-->` becomes `->` in subtitles with words too, and no longer arrow leaves one behind.
- vtt writes `&` and `<` of the text as `&amp;` and `&lt;`; the `<u>` of `highlight_words` stays markup.
- A cue or word that shows nothing is left out of srt and vtt; txt and tsv keep the empty line of an empty segment.
- Cues of srt and vtt start at 0 or later and at least 1 ms after their predecessor's start, last at least 1 ms, and
  never overlap (the earlier ends where the later starts): WebVTT wants order and length
  (https://www.w3.org/TR/webvtt1/ section 4.1), players no overlap. tsv and json keep the times as they are.
- Where channels are speakers, `Speaker 1: ` stands before each line of txt and each cue of srt, `<v Speaker 1>` before each
  cue of vtt, tsv has a fourth column and json a field `speaker`. No cue holds words of two speakers.
- json is not escaped to ASCII. JSON has no NaN or infinity: such a number is null there, and such a time 0 elsewhere.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from whisperd.core.transcript import Word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import Segment, Transcript

LONG_PAUSE_SECONDS = 3.0  # between the starts of two words; ends a cue where max_line_width and max_line_count shape it
UNLIMITED = 1000  # characters in a line, words in a cue: whisper's stand-in for "no limit"

_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029], " ")
_ARROW = re.compile(r"-{2,}>")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class _Cue(NamedTuple):
    start: int  # milliseconds
    end: int
    text: str


def render(transcript: Transcript, options: OutputOptions) -> dict[str, bytes]:
    """The content of one file per format of `options.formats`, in UTF-8.

    Raises:
        KeyError: a format that is not in `FORMATS`; the config lets none pass.
    """
    return {name: _SURROGATE.sub("\ufffd", _WRITERS[name](transcript, options)).encode() for name in options.formats}


def _txt(transcript: Transcript, _options: OutputOptions) -> str:
    return "".join(f"{_label(segment.speaker)}{_one_line(segment.text).strip()}\n" for segment in transcript.segments)


def _srt(transcript: Transcript, options: OutputOptions) -> str:
    cues = _repaired(_cues(transcript, options, escape=str, label=_label))
    return "".join(
        f"{number}\n{_clock(cue.start, ',', hours=True)} --> {_clock(cue.end, ',', hours=True)}\n{cue.text}\n\n"
        for number, cue in enumerate(cues, start=1)
    )


def _vtt(transcript: Transcript, options: OutputOptions) -> str:
    cues = _repaired(_cues(transcript, options, escape=_vtt_text, label=_vtt_label))
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{cue.text}\n\n" for cue in cues
    )


def _tsv(transcript: Transcript, _options: OutputOptions) -> str:
    with_speakers = _has_speakers(transcript)
    return ("start\tend\ttext\tspeaker\n" if with_speakers else "start\tend\ttext\n") + "".join(
        f"{_milliseconds(segment.start)}\t{_milliseconds(segment.end)}\t{_one_line(segment.text).strip()}"
        + (f"\t{_one_line(segment.speaker or '')}\n" if with_speakers else "\n")
        for segment in transcript.segments
    )


def _json(transcript: Transcript, _options: OutputOptions) -> str:
    with_words, with_speakers = _has_words(transcript), _has_speakers(transcript)
    segments = [
        {
            "id": index,
            "seek": segment.seek,
            "start": _finite(segment.start),
            "end": _finite(segment.end),
            "text": segment.text,
            "tokens": segment.tokens,
            "temperature": _finite(segment.temperature),
            "avg_logprob": _finite(segment.avg_logprob),
            "compression_ratio": _finite(segment.compression_ratio),
            "no_speech_prob": _finite(segment.no_speech_prob),
            **({"speaker": segment.speaker} if with_speakers else {}),
            **({"words": [_json_word(word) for word in segment.words or ()]} if with_words else {}),
        }
        for index, segment in enumerate(transcript.segments)
    ]
    result = {"text": transcript.text, "segments": segments, "language": transcript.language}
    return json.dumps(result, ensure_ascii=False, allow_nan=False)


def _json_word(word: Word) -> dict[str, str | float | None]:
    return {
        "word": word.text,
        "start": _finite(word.start),
        "end": _finite(word.end),
        "probability": _finite(word.probability),
    }


_WRITERS = {"txt": _txt, "srt": _srt, "vtt": _vtt, "tsv": _tsv, "json": _json}
FORMATS: tuple[str, ...] = tuple(_WRITERS)


def _cues(
    transcript: Transcript,
    options: OutputOptions,
    *,
    escape: Callable[[str], str],
    label: Callable[[str | None], str],
) -> Iterator[_Cue]:
    if not _has_words(transcript):
        for segment in transcript.segments:
            text = escape(_one_line(segment.text).strip())
            text = label(segment.speaker) + text if text else ""
            yield _Cue(_milliseconds(segment.start), _milliseconds(segment.end), text)
        return
    for speaker, words in _laid_out(transcript.segments, options):
        texts = [escape(word.text) for word in words]
        if options.highlight_words:
            yield from (cue._replace(text=label(speaker) + cue.text) for cue in _highlighted(words, texts))
        else:
            text = label(speaker) + "".join(texts)
            yield _Cue(_milliseconds(words[0].start), _milliseconds(words[-1].end), text)


def _laid_out(segments: Iterable[Segment], options: OutputOptions) -> Iterator[tuple[str | None, list[Word]]]:
    """The speaker and the words of each cue; one that opens a line has no space before it, and a line break from the second line on.

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
                length = len(line) + (0 if cue else len(_label(speaker)))
            cue.append(replace(word, text=text))
    if cue:
        yield speaker, cue


def _words(segment: Segment) -> list[Word]:
    words = segment.words or (Word(segment.start, segment.end, segment.text, probability=1.0),)
    return [replace(word, text=_one_line(word.text)) for word in words if _one_line(word.text).strip()]


def _highlighted(words: list[Word], texts: list[str]) -> Iterator[_Cue]:
    """One cue for each word, in which it is underlined, and one without a mark for each gap between two words."""
    shown_until = _milliseconds(words[0].start)
    for index, word in enumerate(words):
        start, end = _milliseconds(word.start), _milliseconds(word.end)
        if start > shown_until:
            yield _Cue(shown_until, start, "".join(texts))
        yield _Cue(start, end, "".join([*texts[:index], _underlined(texts[index]), *texts[index + 1 :]]))
        shown_until = end


def _repaired(cues: Iterable[_Cue]) -> list[_Cue]:
    """The cues that show something, in order, apart and of some length; see the module's docstring."""
    repaired: list[_Cue] = []
    for cue in cues:
        if not cue.text:
            continue
        start = max(cue.start, 0)
        if repaired:
            previous = repaired[-1]
            start = max(start, previous.start + 1)
            repaired[-1] = previous._replace(end=min(previous.end, start))
        repaired.append(_Cue(start, max(cue.end, start + 1), _ARROW.sub("->", cue.text)))
    return repaired


def _has_words(transcript: Transcript) -> bool:
    return any(segment.words for segment in transcript.segments)


def _has_speakers(transcript: Transcript) -> bool:
    return any(segment.speaker is not None for segment in transcript.segments)


def _label(speaker: str | None) -> str:
    return "" if speaker is None else f"{_one_line(speaker)}: "


def _vtt_label(speaker: str | None) -> str:
    return "" if speaker is None else f"<v {_vtt_text(_one_line(speaker)).replace('>', '&gt;')}>"


def _one_line(text: str) -> str:
    return text.translate(_CONTROLS)


def _vtt_text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _underlined(text: str) -> str:
    word = text.lstrip()
    return f"{text[: len(text) - len(word)]}<u>{word}</u>"


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _milliseconds(seconds: float) -> int:
    milliseconds = seconds * 1000
    return round(milliseconds) if math.isfinite(milliseconds) else 0


def _clock(milliseconds: int, decimal_mark: str, *, hours: bool = False) -> str:
    """`00:01:02,345`; the hours are left out below one unless asked for, and have more than two digits from 100 on."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hour, minutes = divmod(minutes, 60)
    return f"{f'{hour:02d}:' if hours or hour else ''}{minutes:02d}:{seconds:02d}{decimal_mark}{milliseconds:03d}"
