"""The protocol of engines: what a worker asks of the code that runs a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from whisperd.core.options import TranscribeOptions
    from whisperd.core.transcript import Segment, Transcript


SAMPLE_RATE = 16_000


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What was loaded, as the sidecar and the logs name it."""

    engine: str
    model: str
    device: str
    compute_type: str  # "fp32", "fp16", "bf16", "int8"


@dataclass(frozen=True, slots=True, eq=False)
class AudioWindow:
    """At most 30 s of one recording, to be decoded by itself.

    Attributes:
        audio: shape (samples,), 16 kHz mono, signed 16 bit.
        options: of the job.
        language: a code; None: detected from this window.
    """

    audio: npt.NDArray[np.int16]
    options: TranscribeOptions
    language: str | None


@dataclass(frozen=True, slots=True)
class DecodedWindow:
    """The text of one window, times in seconds from its start.

    Attributes:
        language: a code.
        language_probability: None if the language was given.
        segments: none if nobody speaks.
        covered_seconds: up to where the audio was dealt with; the rest is to be decoded as a window of its own.
        temperature: of the attempt that was taken.
        avg_logprob: mean log-probability of a token.
        compression_ratio: of the text, by zlib.
        no_speech_prob: of the window.
        silent: nobody speaks.
        attempts: 1, and 1 for each time it was decoded again.
        looped: it repeated itself and was stopped.
    """

    language: str
    language_probability: float | None
    segments: tuple[Segment, ...]
    covered_seconds: float
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    silent: bool
    attempts: int
    looped: bool


class WindowEngine(Protocol):
    """A loaded model that decodes windows of several recordings at once. For one thread of one process."""

    @property
    def info(self) -> EngineInfo:
        """What was loaded."""
        ...

    @property
    def capacity(self) -> int:
        """Windows that it decodes at once."""
        ...

    @property
    def pending(self) -> int:
        """Windows submitted and not yet given out."""
        ...

    def check(self, options: TranscribeOptions) -> None:
        """Refuse what this model cannot do.

        Raises:
            InputError: for example, a language that an English-only model does not know.
        """
        ...

    def submit(self, window: AudioWindow) -> int:
        """Take a window; its handle comes back from `step`."""
        ...

    def withdraw(self, handle: int) -> None:
        """Forget a window: its result will not be given out."""
        ...

    def step(self) -> Sequence[tuple[int, DecodedWindow]]:
        """Go on for a little while; the windows that are done since.

        Raises:
            OutOfMemory: nothing was lost; `shrink` and go on.
            EngineError: whatever else is wrong with the model.
        """
        ...

    def shrink(self) -> bool:
        """Use a smaller batch from now on; False if it cannot be smaller."""
        ...


class Engine(Protocol):
    """A loaded model. One per process: openai-whisper's hooks are not safe between threads."""

    @property
    def info(self) -> EngineInfo:
        """What was loaded."""
        ...

    def check(self, options: TranscribeOptions) -> None:
        """Refuse what this model cannot do.

        Raises:
            InputError: for example, a language that an English-only model does not know.
        """
        ...

    def transcribe(
        self,
        audio: npt.NDArray[np.int16],
        options: TranscribeOptions,
        report: Callable[[float], None],
    ) -> Transcript:
        """Turn one recording into text.

        Args:
            audio: shape (samples,), 16 kHz mono, signed 16 bit; may be a memory map, so read it piece by piece.
            options: how to transcribe.
            report: called after each window with the audio seconds done so far, never going back, reaching the length
                of the audio at the end. It is the heartbeat; what it raises ends the job and passes through.

        Raises:
            EngineError: retryable trouble with the model; OutOfMemory among it.
        """
        ...
