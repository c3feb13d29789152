"""Judges an attempt: the thresholds of `whisper.transcribe`, and whether a row repeats itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisper.utils import compression_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from whisperd.core.options import TranscribeOptions


@dataclass(frozen=True, slots=True)
class Quality:
    """The measurements of the text of one attempt."""

    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    looped: bool

    def needs_fallback(self, options: TranscribeOptions) -> bool:
        """Whether the text is too repetitive or too improbable, and is not just silence."""
        unlikely = options.logprob_threshold is not None and self.avg_logprob < options.logprob_threshold
        if unlikely and self._no_speech(options):
            return False
        repetitive = (
            options.compression_ratio_threshold is not None
            and self.compression_ratio > options.compression_ratio_threshold
        )
        return unlikely or repetitive or self.looped

    def is_silence(self, options: TranscribeOptions) -> bool:
        """Whether nobody speaks in the window, unless the text is probable enough to count."""
        likely = options.logprob_threshold is not None and self.avg_logprob > options.logprob_threshold
        return self._no_speech(options) and not likely

    def _no_speech(self, options: TranscribeOptions) -> bool:
        return options.no_speech_threshold is not None and self.no_speech_prob > options.no_speech_threshold


CHECK_EVERY_TOKENS = 16
_LONGEST_LINE = 30  # tokens
_TOKENS_REPEATED = 40
_TIMES_REPEATED = 4


def is_loop(tokens: Sequence[int], tokenizer: Any, compression_ratio_threshold: float) -> bool:
    """Whether the end of `tokens` is one line said at least four times, over at least 40 tokens, and compresses so.

    Lines count as the same whatever their timestamps are. Both conditions, because people do repeat themselves: a
    row that is stopped here would have failed the threshold too, unless it had found its way back.
    """
    line = [min(token, tokenizer.timestamp_begin) for token in tokens]
    if not any(_repeats(line, period) for period in range(1, _LONGEST_LINE + 1)):
        return False
    return bool(compression_ratio(tokenizer.decode(list(tokens)).strip()) > compression_ratio_threshold)


def _repeats(line: Sequence[int], period: int) -> bool:
    wanted = max(_TOKENS_REPEATED, _TIMES_REPEATED * period)
    tail = line[-wanted:]
    return len(tail) == wanted and tail[period:] == tail[:-period]
