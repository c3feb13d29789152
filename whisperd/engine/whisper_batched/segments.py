"""Cuts the tokens of a window into segments with times, and finds when each word was said.

Segments are cut as `whisper.transcribe` cuts them. Words are found from cross-attention as in `whisper.timing`, whose
pure parts (median filter, dynamic time warping, merging of punctuation) are used as they are. Its `find_alignment` is
not: it runs the encoder again, hooks modules of the shared model and switches a class attribute of all models in the
process. Here the features are those of the decoding, and nothing is shared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from whisper.audio import TOKENS_PER_SECOND
from whisper.timing import WordTiming, dtw_cpu, median_filter, merge_punctuations

from whisperd.core.transcript import Segment, Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from whisperd.engine.whisper_batched.text_decoder import TextDecoder


@dataclass(frozen=True, slots=True)
class Cut:
    """The segments of a window, in seconds from its start, and the end of the audio that they cover."""

    segments: tuple[Segment, ...]
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


def _segment(tokens: Sequence[int], tokenizer: Any, start: float, end: float) -> Segment:
    text = tokenizer.decode([token for token in tokens if token < tokenizer.eot])
    return Segment(start=start, end=max(start, end), text=text, tokens=tuple(tokens))


_FILTER_WIDTH = 7
# Defaults of whisper.transcribe; their full-width signs are meant.
_SENTENCE_ENDS = ".。!！?？"  # noqa: RUF001
_PREPENDED = "\"'“¿([{-"
_APPENDED = "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001


class Aligner:
    """Finds when each word was said.

    Args:
        network: the decoder.
        heads: (layer, head) pairs whose attention follows the audio (`model.alignment_heads`).
    """

    def __init__(self, network: TextDecoder, heads: list[tuple[int, int]]) -> None:
        self._network, self._heads = network, heads

    def add_words(
        self, segments: Sequence[Segment], features: Tensor, tokenizer: Any, seconds: float
    ) -> tuple[Segment, ...]:
        """Add words to segments, and move start and end of each segment to its words, as `whisper.transcribe` does.

        Args:
            segments: of one window, times from its start.
            features: (frames, width) of that window.
            tokenizer: a `whisper.tokenizer.Tokenizer` of language and task.
            seconds: length of the window's audio.
        """
        texts = [[token for token in segment.tokens if token < tokenizer.eot] for segment in segments]
        timings = self._timings([token for text in texts for token in text], features, tokenizer, seconds)
        lengths = [timing.end - timing.start for timing in timings if timing.end != timing.start]
        usual = min(0.7, float(np.median(lengths))) if lengths else 0.0
        if lengths:
            _shorten_at_sentence_ends(timings, longest=2 * usual)
        merge_punctuations(timings, _PREPENDED, _APPENDED)
        result, at, earliest = [], 0, 0.0
        for segment, text in zip(segments, texts, strict=True):
            words, saved = [], 0
            while at < len(timings) and saved < len(text):
                timing = timings[at]
                if timing.word:
                    words.append(Word(float(timing.start), float(timing.end), timing.word, float(timing.probability)))
                saved += len(timing.tokens)
                at += 1
            fitted = _fit(segment, words, usual, earliest)
            result.append(in_order(fitted, earliest, seconds))
            earliest = result[-1].end
        return tuple(result)

    def _timings(self, text: list[int], features: Tensor, tokenizer: Any, seconds: float) -> list[WordTiming]:
        words, word_tokens = tokenizer.split_to_word_tokens([*text, tokenizer.eot])
        if not text or len(word_tokens) <= 1:
            return []
        before = len(tokenizer.sot_sequence)
        tokens = [*tokenizer.sot_sequence, tokenizer.no_timestamps, *text, tokenizer.eot]
        cross = self._network.cross([features])
        filled = self._network.prefill(torch.tensor([tokens], device=features.device), cross, watch=self._heads)
        logits = self._network.logits(filled.hidden[0, before : before + len(text)])[:, : tokenizer.eot]
        chances = logits.softmax(-1)[torch.arange(len(text)), text].tolist()

        frames = max(1, min(round(seconds * TOKENS_PER_SECOND), features.shape[0]))
        weights = torch.cat(filled.scores)[:, :, :frames].cpu().softmax(-1)
        deviation, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
        # A single frame, or one that no token looks at, would give 0 / 0.
        weights = median_filter((weights - mean) / deviation.clamp(min=torch.finfo(torch.float32).tiny), _FILTER_WIDTH)
        matrix = weights.mean(0)[before:-1]
        text_places, time_places = dtw_cpu(-matrix.double().numpy())

        jumps = np.pad(np.diff(text_places), (1, 0), constant_values=1).astype(bool)
        times = time_places[jumps] / TOKENS_PER_SECOND
        edges = np.pad(np.cumsum([len(pieces) for pieces in word_tokens[:-1]]), (1, 0))
        return [
            WordTiming(word, pieces, times[first], times[after], float(np.mean(chances[first:after])))
            for word, pieces, first, after in zip(words, word_tokens, edges[:-1], edges[1:], strict=False)
        ]


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
