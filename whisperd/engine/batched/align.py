"""Word timestamps from cross-attention, as `whisper.timing` finds them.

`whisper.timing.find_alignment` runs the encoder again, hooks modules of the shared model and switches a class attribute
of all models in the process; here the features are those of the decoding, and nothing is shared. Its pure parts (median
filter, dynamic time warping, merging of punctuation) are used as they are.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from whisper.audio import TOKENS_PER_SECOND
from whisper.timing import WordTiming, dtw_cpu, median_filter, merge_punctuations

from whisperd.engine.batched.segments import in_order
from whisperd.transcript import Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from whisperd.engine.batched.network import TextDecoder
    from whisperd.transcript import Segment

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
        """The same segments with words, and with start and end moved to them as `whisper.transcribe` does.

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
    """A pause between sentences is not part of a word."""
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
