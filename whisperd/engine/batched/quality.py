"""Is this attempt good enough? The thresholds of `whisper.transcribe`, nothing added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whisperd.options import TranscribeOptions


@dataclass(frozen=True, slots=True)
class Quality:
    """Of the text that one attempt came to."""

    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    looped: bool

    def needs_fallback(self, options: TranscribeOptions) -> bool:
        """Too repetitive or too improbable, and not merely silence."""
        unlikely = options.logprob_threshold is not None and self.avg_logprob < options.logprob_threshold
        if unlikely and self._no_speech(options):
            return False
        repetitive = (
            options.compression_ratio_threshold is not None
            and self.compression_ratio > options.compression_ratio_threshold
        )
        return unlikely or repetitive or self.looped

    def is_silence(self, options: TranscribeOptions) -> bool:
        """Nobody speaks, and the text is not so probable that it counts all the same."""
        likely = options.logprob_threshold is not None and self.avg_logprob > options.logprob_threshold
        return self._no_speech(options) and not likely

    def _no_speech(self, options: TranscribeOptions) -> bool:
        return options.no_speech_threshold is not None and self.no_speech_prob > options.no_speech_threshold
