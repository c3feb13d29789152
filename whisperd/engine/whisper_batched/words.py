"""Finds when each word was said, from the attention that the decoder paid to the audio while it wrote.

The method is that of `whisper.timing`: some heads of the cross-attention follow the audio, and dynamic time warping
finds the frame at which each token begins. `whisper.timing.find_alignment` decodes the text again to see this
attention. Here the queries of these heads are kept while decoding, so that only their scores are left to compute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch user reads
from whisper.audio import TOKENS_PER_SECOND
from whisper.timing import WordTiming, merge_punctuations

from whisperd.core.transcript import Segment, Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from torch import Tensor

    from whisperd.engine.whisper_batched.search import Candidate
    from whisperd.engine.whisper_batched.segments import Cut


_NEIGHBOURS = 3  # on each side, of the median filter
# Defaults of whisper.transcribe; their full-width signs are meant.
_SENTENCE_ENDS = ".。!！?？"  # noqa: RUF001
_PREPENDED = "\"'“¿([{-"
_APPENDED = "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001


@dataclass(frozen=True, slots=True)
class Attention:
    """The attention that was paid while a text was written.

    Attributes:
        queries: per layer, of the heads that follow the audio: (heads, tokens, size), scaled. The one in place n
            looked for token n.
        keys: per layer, of the same heads: (heads, frames, size).
        probabilities: of each token.
    """

    queries: Sequence[Tensor]
    keys: Sequence[Tensor]
    probabilities: Sequence[float]


def attention_of(candidate: Candidate, queries: Sequence[Tensor], keys: Sequence[Tensor]) -> Attention:
    """Collect the attention that was paid while a candidate was written.

    Args:
        candidate: of one window.
        queries: per layer, of all rows of the window (rows, heads, tokens, size).
        keys: per layer, (heads, frames, size).
    """
    own = [torch.stack([kept[row, :, token] for token, row in enumerate(candidate.rows)], dim=1) for kept in queries]
    return Attention(own, keys, [math.exp(logprob) for logprob in candidate.logprobs])


def add_words(cut: Cut, paid: Attention, tokenizer: Any, seconds: float) -> tuple[Segment, ...]:
    """Add words to segments, and move start and end of each segment to its words, as `whisper.transcribe` does.

    Args:
        cut: the segments of one window.
        paid: the attention while it was decoded.
        tokenizer: a `whisper.tokenizer.Tokenizer` of language and task.
        seconds: length of the window's audio.
    """
    texts = [[token for token in segment.tokens if token < tokenizer.eot] for segment in cut.segments]
    text = [token for each in texts for token in each]
    if not text:
        return cut.segments
    places = [
        first + place
        for first, segment in zip(cut.firsts, cut.segments, strict=True)
        for place, token in enumerate(segment.tokens)
        if token < tokenizer.eot
    ]
    frames = max(1, min(round(seconds * TOKENS_PER_SECOND), paid.keys[0].shape[1]))
    starts = token_starts(paid, [*places, places[-1] + 1], frames)
    timings = _timings(text, starts, [paid.probabilities[place] for place in places], tokenizer)
    lengths = [timing.end - timing.start for timing in timings if timing.end != timing.start]
    usual = min(0.7, float(np.median(lengths))) if lengths else 0.0
    if lengths:
        _shorten_at_sentence_ends(timings, longest=2 * usual)
    merge_punctuations(timings, _PREPENDED, _APPENDED)
    result, at, earliest = [], 0, 0.0
    for segment, tokens in zip(cut.segments, texts, strict=True):
        words, saved = [], 0
        while at < len(timings) and saved < len(tokens):
            timing = timings[at]
            if timing.word:
                words.append(Word(float(timing.start), float(timing.end), timing.word, float(timing.probability)))
            saved += len(timing.tokens)
            at += 1
        fitted = _fit(segment, words, usual, earliest)
        result.append(in_order(fitted, earliest, seconds))
        earliest = result[-1].end
    return tuple(result)


def token_starts(paid: Attention, places: Sequence[int], frames: int) -> npt.NDArray[np.float64]:
    """Find the second at which each token begins, counted from the start of the window.

    Args:
        paid: the attention.
        places: the tokens of which it is wanted, in order.
        frames: of audio; what lies behind them is padding.
    """
    known = [place for place in places if place < paid.queries[0].shape[1]]
    total = torch.zeros(len(known), frames)
    for queries, keys in zip(paid.queries, paid.keys, strict=True):
        for query, key in zip(queries, keys, strict=True):  # head by head: the scores stay in the CPU's cache
            weights = (query.float() @ key[:frames].float().T).softmax(-1)
            deviation, mean = torch.std_mean(weights, dim=0, keepdim=True, unbiased=False)
            # A single frame, or one that no token attends to, would give 0 / 0.
            weights = (weights[known] - mean) / deviation.clamp(min=torch.finfo(torch.float32).tiny)
            total += median_of_seven(weights).cpu()
    starts = first_frames(-total.double().numpy()) / TOKENS_PER_SECOND
    # A row that was cut off has nothing after its last token.
    return np.pad(starts, (0, len(places) - len(known)), constant_values=frames / TOKENS_PER_SECOND)


def median_of_seven(x: Tensor) -> Tensor:
    """Replace each number by the median of itself and three neighbours on each side along the last dimension.

    Equals `whisper.timing.median_filter(x, 7)`, which sorts all groups of seven; here each group of three is sorted once
    and serves two groups of seven. `x` is (rows, frames); with fewer than four frames it comes back as it is.
    """
    if x.shape[-1] <= _NEIGHBOURS:
        return x
    padded = F.pad(x, (_NEIGHBOURS, _NEIGHBOURS), mode="reflect")
    first, second, third = padded[:, :-2], padded[:, 1:-1], padded[:, 2:]
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    middle = torch.maximum(low, third)
    low, middle, high = torch.minimum(low, third), torch.minimum(middle, high), torch.maximum(middle, high)
    (a1, a2, a3), (b1, b2, b3) = ([part[:, :-4] for part in (low, middle, high)], [part[:, 4:] for part in (low, middle, high)])  # fmt: skip
    # The third and the fourth smallest of both threes; the seventh number decides between them.
    third_smallest = torch.minimum(torch.minimum(a3, b3), torch.minimum(torch.maximum(a1, b2), torch.maximum(a2, b1)))
    fourth_smallest = torch.minimum(torch.maximum(a2, b2), torch.minimum(torch.maximum(a1, b3), torch.maximum(a3, b1)))
    return torch.maximum(third_smallest, torch.minimum(x, fourth_smallest))


def first_frames(costs: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Find the first frame of each row on the cheapest way through all rows and frames (dynamic time warping).

    The way begins at the first row and frame, ends at the last ones, and each of its steps goes to the next row, the next
    frame, or both. Equals the jumps of `whisper.timing.dtw`, but for ties. A row's sums are one running minimum: from the
    left a step adds the cost of a frame, so without the running sum of these costs it adds nothing.

    Args:
        costs: (rows, frames).

    Returns:
        (rows,), frames.
    """
    rows, frames = costs.shape
    ends = np.cumsum(costs, axis=1)
    begins = ends - costs
    best = np.empty((rows + 1, frames + 1))  # sums of the cheapest ways to each place, with a border
    best[0], best[:, 0] = np.inf, np.inf
    best[0, 0] = 0.0
    entered = np.empty((rows, frames), dtype=bool)  # from the row above, not from the left
    for row in range(rows):
        above = np.minimum(best[row, :-1], best[row, 1:])
        np.minimum.accumulate(above - begins[row], out=best[row + 1, 1:])
        best[row + 1, 1:] += ends[row]
        entered[row] = above < best[row + 1, :-1]
    result = np.zeros(rows, dtype=np.intp)
    frame = frames - 1
    for row in reversed(range(rows)):
        result[row] = frame = np.flatnonzero(entered[row, : frame + 1])[-1]
        frame -= int(best[row, frame] < best[row, frame + 1])
    return result


def _timings(
    text: Sequence[int], starts: npt.NDArray[np.float64], chances: Sequence[float], tokenizer: Any
) -> list[WordTiming]:
    """Join tokens to words; `starts` has one more number than the text has tokens."""
    words, word_tokens = tokenizer.split_to_word_tokens([*text, tokenizer.eot])
    edges = np.cumsum([0, *(len(pieces) for pieces in word_tokens[:-1])])
    return [
        WordTiming(word, pieces, starts[first], starts[after], float(np.mean(chances[first:after])))
        for word, pieces, (first, after) in zip(words, word_tokens, pairwise(edges), strict=False)
    ]


def in_order(segment: Segment, earliest: float, latest: float) -> Segment:
    """Correct the times of a segment's words, so that they are in order and inside the segment and its window.

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


def _shorten_at_sentence_ends(timings: list[WordTiming], longest: float) -> None:
    """Shorten words at the ends of sentences, because a pause between sentences is not part of a word."""
    for previous, timing in pairwise(timings):
        if timing.end - timing.start > longest:
            if timing.word in _SENTENCE_ENDS:
                timing.end = timing.start + longest
            elif previous.word in _SENTENCE_ENDS:
                timing.start = timing.end - longest


def _fit(segment: Segment, words: list[Word], usual: float, last_end: float) -> Segment:
    """Trim the words around a pause and let segment and words agree, as `whisper.timing.add_word_timestamps` does."""
    if not words:
        return replace(segment, words=())
    longest, first = 2 * usual, words[0]
    second = words[1] if len(words) > 1 else None
    if first.end - last_end > 2 * longest and (
        first.end - first.start > longest or (second is not None and second.end - first.start > 2 * longest)
    ):
        if second is not None and second.end - second.start > longest:
            boundary = max(second.end / 2, second.end - longest)
            first = replace(first, end=boundary)
            words[1] = replace(second, start=boundary)
        first = replace(first, start=max(0.0, first.end - longest))
    start, end = segment.start, segment.end
    if start < first.end and start - 0.5 > first.start:
        first = replace(first, start=max(0.0, min(first.end - usual, start)))
    else:
        start = first.start
    words[0] = first
    last = words[-1]
    if end > last.start and end + 0.5 < last.end:
        words[-1] = replace(last, end=max(last.start + usual, end))
    else:
        end = last.end
    return replace(segment, start=start, end=end, words=tuple(words))
