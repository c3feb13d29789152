"""Cuts the tokens of a window into segments with times, as `whisper.transcribe` cuts them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from whisper.audio import TOKENS_PER_SECOND

from whisperd.core.transcript import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Cut:
    """The segments of a window, in seconds from its start.

    Attributes:
        segments: those with text and length.
        firsts: of each, the place of its first token among the tokens of the window.
        covered_seconds: the end of the audio that they cover.
    """

    segments: tuple[Segment, ...]
    firsts: tuple[int, ...]
    covered_seconds: float


def cut_segments(tokens: Sequence[int], tokenizer: Any, seconds: float, *, truncated: bool = False) -> Cut:
    """Cut the tokens of a window into segments, where two timestamps meet.

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
        segments.append((last, _segment(piece, tokenizer, seconds_of(piece[0]), seconds_of(piece[-1]))))
        last = place
    covered = seconds
    if not places:
        newest = max((token for token in tokens if token > begin), default=None)
        segments.append((0, _segment(tokens, tokenizer, 0.0, seconds if newest is None else seconds_of(newest))))
    elif not whole:
        tail = _segment(tokens[last:], tokenizer, seconds_of(tokens[last]), seconds)
        if truncated or not tail.text.strip():
            covered = seconds_of(tokens[last - 1])
        else:
            segments.append((last, tail))
    kept = [(first, segment) for first, segment in segments if segment.start != segment.end and segment.text.strip()]
    return Cut(
        segments=tuple(segment for _, segment in kept),
        firsts=tuple(first for first, _ in kept),
        covered_seconds=min(covered, seconds),
    )


def _segment(tokens: Sequence[int], tokenizer: Any, start: float, end: float) -> Segment:
    text = tokenizer.decode([token for token in tokens if token < tokenizer.eot])
    return Segment(start=start, end=max(start, end), text=text, tokens=tuple(tokens))
