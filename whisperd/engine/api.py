"""The protocol of engines: what a worker asks of the code that runs a model, and how it creates the one that is asked for.

A worker drives every engine alike: it submits windows while there is room, and calls `step` until their texts have come.
An engine that decodes windows of at most 30 s implements `Engine`. One that takes whole recordings derives from
`RecordingEngine` and writes `info`, `check` and `transcribe`. A new engine is a line of `whisperd.core.options.ENGINES`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from whisperd.core.errors import BootError, InputError, OutOfMemory
from whisperd.core.options import ENGINES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from whisperd.core.errors import JobError
    from whisperd.core.options import EngineOptions, TranscribeOptions
    from whisperd.core.transcript import Segment, Transcript


SAMPLE_RATE = 16_000


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What was loaded, as status files and logs name it."""

    engine: str
    model: str
    device: str
    compute_type: str  # "fp32", "fp16", "bf16", "int8"


@dataclass(frozen=True, slots=True, eq=False)
class AudioWindow:
    """A part of one recording, to be decoded by itself: at most 30 s, or all of it if the engine takes recordings.

    Attributes:
        audio: shape (samples,), 16 kHz mono, signed 16 bit; a view of a memory map that cannot be written, so an engine
            that keeps or changes it makes a copy, and one that takes recordings reads it piece by piece.
        options: of the job.
        language: a code; None: the engine detects it, among `options.languages`.
        parts: start and end in samples of the parts in which it detects the language too, for `DecodedWindow.heard`; an
            engine that cannot do so leaves `heard` empty.
        accepts: asked with what was heard in the parts; if it says no, the window is not decoded.
        only_language: nothing is decoded; the language of the whole window is detected, which is its one part.
    """

    audio: npt.NDArray[np.int16]
    options: TranscribeOptions
    language: str | None
    parts: tuple[tuple[int, int], ...] = ()
    accepts: Callable[[Sequence[dict[str, float]]], bool] | None = None
    only_language: bool = False


@dataclass(frozen=True, slots=True)
class DecodedWindow:
    """The text of one window, times in seconds from its start.

    Attributes:
        language: a code.
        language_probability: None if the language was given.
        segments: none if nobody speaks.
        covered_seconds: how much of the audio was decoded; the rest becomes a window of its own.
        temperature: of the attempt that was taken.
        avg_logprob: mean log-probability of a token.
        compression_ratio: of the text, by zlib.
        no_speech_prob: of the window.
        silent: nobody speaks.
        attempts: 1, and 1 for each time it was decoded again.
        looped: it repeated itself and was stopped.
        heard: for each part, the probability of each language that has more than a trace of it.
        is_decoded: False if only the language was asked for, or what was heard was not accepted.
    """

    language: str
    language_probability: float | None
    segments: tuple[Segment, ...]
    covered_seconds: float
    # Of whole recordings the segments have these.
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 0.0
    no_speech_prob: float = 0.0
    silent: bool = False
    attempts: int = 1
    looped: bool = False
    heard: tuple[dict[str, float], ...] = ()
    is_decoded: bool = True


class Engine(Protocol):
    """A loaded model that decodes windows, of several recordings at once if it can. For one thread of one process."""

    @property
    def info(self) -> EngineInfo:
        """What was loaded."""
        ...

    @property
    def takes_recordings(self) -> bool:
        """Whether a window is a whole recording; then nothing is left out of it, and no language is voted for."""
        ...

    @property
    def capacity(self) -> int:
        """Windows that it decodes at once."""
        ...

    @property
    def pending(self) -> int:
        """Windows submitted whose result `step` has not returned."""
        ...

    def check(self, options: TranscribeOptions) -> None:
        """Refuse what this model cannot do; called on any thread.

        Raises:
            InputError: for example, a language that an English-only model does not know.
        """
        ...

    def submit(self, window: AudioWindow) -> int:
        """Take a window; its handle comes back from `step`."""
        ...

    def withdraw(self, handle: int) -> None:
        """Forget a window: its result will not be returned. Also called from `report`, within `step`."""
        ...

    def step(self, report: Callable[[int, float], None], /) -> Sequence[tuple[int, DecodedWindow | JobError]]:
        """Work for a short time; return the windows that were finished.

        Args:
            report: called at least once a second in a step that takes longer, with the handle of a window and the audio
                seconds of it that are done, never going back. It is the heartbeat; what it raises ends the step and
                passes through, and the window has then been withdrawn.

        Returns:
            For each window its text, or the error that ended this window and says nothing about others.

        Raises:
            OutOfMemory: nothing was lost; `shrink` and continue.
            EngineError: whatever else is wrong with the model.
        """
        ...

    def shrink(self) -> bool:
        """Use a smaller batch from now on; False if it cannot be smaller."""
        ...


class RecordingEngine(ABC):
    """Base of engines that transcribe whole recordings, one after the other: drives `transcribe` as an `Engine`."""

    takes_recordings = True
    capacity = 1

    def __init__(self) -> None:
        self._windows: dict[int, AudioWindow] = {}
        self._handles = 0

    @property
    @abstractmethod
    def info(self) -> EngineInfo:
        """What was loaded."""

    @abstractmethod
    def check(self, options: TranscribeOptions) -> None:
        """Refuse what this model cannot do; see `Engine.check`."""

    @abstractmethod
    def transcribe(
        self,
        audio: npt.NDArray[np.int16],
        options: TranscribeOptions,
        report: Callable[[float], None],
    ) -> Transcript:
        """Turn one recording into text.

        Args:
            audio: shape (samples,), 16 kHz mono, signed 16 bit; may be a memory map, so it is read piece by piece.
            options: how to transcribe.
            report: called after each window with the audio seconds done so far, never going back, reaching the length
                of the audio at the end. It is the heartbeat; what it raises ends the job and passes through.

        Raises:
            InputError: this model cannot do what is asked.
            EngineError: retryable trouble with the model; OutOfMemory among it.
        """

    @property
    def pending(self) -> int:
        """Recordings that wait."""
        return len(self._windows)

    def submit(self, window: AudioWindow) -> int:
        """Take a recording."""
        self._handles += 1
        self._windows[self._handles] = window
        return self._handles

    def withdraw(self, handle: int) -> None:
        """Forget a recording."""
        self._windows.pop(handle, None)

    def step(self, report: Callable[[int, float], None], /) -> Sequence[tuple[int, DecodedWindow | JobError]]:
        """Transcribe the recording that has waited longest."""
        handle, window = next(iter(self._windows.items()))
        outcome: DecodedWindow | JobError
        try:
            transcript = self.transcribe(window.audio, window.options, lambda seconds: report(handle, seconds))
        except (InputError, OutOfMemory) as error:  # a smaller batch is not possible, and another recording may fit
            outcome = error
        else:
            outcome = DecodedWindow(
                transcript.language,
                transcript.language_probability,
                transcript.segments,
                covered_seconds=len(window.audio) / SAMPLE_RATE,
            )
        finally:
            self.withdraw(handle)
        return [(handle, outcome)]

    def shrink(self) -> bool:
        """Refuse: one recording at a time is the least."""
        return False


def create(options: EngineOptions) -> Engine:
    """Load the engine that `options.engine` names, and import no other; this takes seconds to minutes.

    Raises:
        BootError: no such engine, or its model or device cannot be used.
    """
    entry = ENGINES.get(options.engine)
    if entry is None:
        raise BootError(f"there is no engine {options.engine!r}", hint=f"set engine to one of {', '.join(ENGINES)}")
    module, _, name = (entry.batched if options.decoding == "batched" else entry.sequential).partition(":")
    try:
        made = importlib.import_module(f"whisperd.engine.{module}")
    except ImportError as error:
        if not entry.extra:
            raise
        raise BootError(
            f"the engine {options.engine} is not installed: {error}",
            hint=f"run `pip install 'whisperd[{entry.extra}]'`",
        ) from error
    engine: Engine = getattr(made, name)(options)
    return engine
