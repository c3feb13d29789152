"""The protocol between a worker and the code that runs a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from whisperd.options import TranscribeOptions
    from whisperd.transcript import Transcript

SAMPLE_RATE = 16_000


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What was loaded, as the sidecar and the logs name it."""

    engine: str
    model: str
    device: str
    compute_type: str  # "fp32", "fp16", "bf16", "int8"


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
