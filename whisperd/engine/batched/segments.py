"""Tokens of one window to segments with times, as `whisper.transcribe` cuts them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from whisper.audio import TOKENS_PER_SECOND

from whisperd.transcript import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Cut:
    """Segments in seconds from the start of the window, and up to where they account for its audio."""

    segments: tuple[Segment, ...]
    covered_seconds: float


def cut_segments(tokens: Sequence[int], tokenizer: Any, seconds: float, *, truncated: bool = False) -> Cut:
    """Cut where two timestamps meet.

    openai-whisper drops what stands behind the last such place and decodes that audio again as the start of its next
    window. A window here may have no next one, so that text is kept, up to the end of the window, unless the row was
    cut off in the middle of it.

    Args:
        tokens: as sampled, timestamps included, without the end.
        tokenizer: a `whisper.tokenizer.Tokenizer` of the language.
        seconds: length of the window's audio.
        truncated: the row had no room for more tokens.
    """
    begin = tokenizer.timestamp_begin
    stamps = [token >= begin for token in tokens]
    places = [place + 1 for place, pair in enumerate(pairwise(stamps)) if all(pair)]
    # One timestamp at the end, not two: nobody speaks behind it.
    whole = stamps[-2:] == [False, True]
    if places and whole:
        places.append(len(tokens))

    def seconds_of(token: int) -> float:
        return float((token - begin) / TOKENS_PER_SECOND)

    segments, last = [], 0
    for place in places:
        piece = tokens[last:place]
        segments.append(_segment(piece, tokenizer, seconds_of(piece[0]), seconds_of(piece[-1])))
        last = place
    covered = seconds
    if not places:
        newest = max((token for token in tokens if token > begin), default=None)
        segments.append(_segment(tokens, tokenizer, 0.0, seconds if newest is None else seconds_of(newest)))
    elif not whole:
        tail = _segment(tokens[last:], tokenizer, seconds_of(tokens[last]), seconds)
        if truncated or not tail.text.strip():
            covered = seconds_of(tokens[last - 1])
        else:
            segments.append(tail)
    kept = (segment for segment in segments if segment.start != segment.end and segment.text.strip())
    return Cut(tuple(kept), min(covered, seconds))


def in_order(segment: Segment, earliest: float, latest: float) -> Segment:
    """The same segment with its words one after the other, inside it and its window: alignment alone does not see to it.

    Args:
        segment: times in seconds from the start of the window.
        earliest: the end of the segment before.
        latest: the end of the window.
    """
    words, at = [], earliest
    for word in segment.words or ():
        start = round(min(max(word.start, at), latest), 2)
        end = round(min(max(word.end, start), latest), 2)
        words.append(replace(word, start=start, end=end))
        at = end
    start = words[0].start if words else max(segment.start, earliest)
    end = words[-1].end if words else max(segment.end, start)
    return replace(segment, start=start, end=end, words=tuple(words))


def _segment(tokens: Sequence[int], tokenizer: Any, start: float, end: float) -> Segment:
    text = tokenizer.decode([token for token in tokens if token < tokenizer.eot])
    return Segment(start=start, end=max(start, end), text=text, tokens=tuple(tokens))
