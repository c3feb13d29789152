"""Which windows CTranslate2 can decode together, and which of their attempts counts. Loads no model code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from whisperd.engine.base import AudioWindow
    from whisperd.engine.batched.quality import Quality
    from whisperd.options import TranscribeOptions


@dataclass(frozen=True, slots=True)
class Manner:
    """What the windows of one batch have in common; all but the first field are arguments of CTranslate2."""

    words_before: int  # tokens of hotwords and prompt: it wants the text to begin at the same place in all rows
    beam_size: int
    patience: float
    num_hypotheses: int
    length_penalty: float
    sampling_topk: int
    sampling_temperature: float
    suppress_tokens: tuple[int, ...]

    def arguments(self) -> dict[str, Any]:
        """For `ctranslate2.models.Whisper.generate`."""
        names = [name for name in self.__dataclass_fields__ if name != "words_before"]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a window came to at one temperature."""

    tokens: tuple[int, ...]  # timestamps included, without the end
    temperature: float
    quality: Quality


@dataclass(slots=True, eq=False)
class Trial:
    """A window on its way."""

    ticket: int
    window: AudioWindow
    before: tuple[int, ...]  # tokens of hotwords and prompt
    manner: Manner
    language: str | None
    language_probability: float | None = None
    features: npt.NDArray[Any] | None = None  # (1500, width), the encoder's output
    attempts: list[Attempt] = field(default_factory=list)


def manner_of(options: TranscribeOptions, temperature: float, words_before: int, suppressed: tuple[int, ...]) -> Manner:
    """How a window is searched for at a temperature: beams at 0, else the best of several samples."""
    sampled = temperature > 0
    return Manner(
        words_before=words_before,
        beam_size=1 if sampled else options.beam_size or 1,
        patience=1.0 if sampled else options.patience or 1.0,
        num_hypotheses=(options.best_of or 1) if sampled else 1,
        length_penalty=1.0 if options.length_penalty is None else options.length_penalty,
        sampling_topk=0 if sampled else 1,
        sampling_temperature=temperature if sampled else 1.0,
        suppress_tokens=suppressed,
    )


def next_batch(queue: Iterable[Trial], most: int) -> list[Trial]:
    """The window that waits longest, and others of its manner."""
    batch: list[Trial] = []
    for trial in queue:
        if len(batch) < most and (not batch or trial.manner == batch[0].manner):
            batch.append(trial)
    return batch


def best_attempt(attempts: Sequence[Attempt], options: TranscribeOptions) -> Attempt:
    """Where all have failed, the most probable of those that do not repeat themselves, as faster-whisper has it."""
    if not attempts[-1].quality.needs_fallback(options):
        return attempts[-1]
    limit = options.compression_ratio_threshold
    plain = [attempt for attempt in attempts if limit is None or attempt.quality.compression_ratio <= limit]
    return max(plain or attempts, key=lambda attempt: attempt.quality.avg_logprob)
