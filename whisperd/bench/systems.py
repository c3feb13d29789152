"""Systems that can be measured: the protocol, and other programs, each started in a fresh process for each run."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self

from whisperd.bench.memory import PeakMemory
from whisperd.bench.programs import ANSWERED, ASKED, Broken, Heard, Listen, Loaded, Settings, ggml_model
from whisperd.core.errors import WhisperdError
from whisperd.engine.weights.find import find, find_ct2
from whisperd.media.ffmpeg import find_ffmpeg
from whisperd.protocol import PipeEnd
from whisperd.settings.profiles import resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whisperd.bench.recordings import ReferenceRecording
    from whisperd.settings.config import Config


@dataclass(frozen=True, slots=True)
class SystemRun:
    """The result of one system over all recordings, once.

    Attributes:
        seconds: from the first recording given to the last text back; loading is not in it.
        load_seconds: from the start of the process to the moment when it would take a recording.
        heard: of each recording, in order.
        peak_bytes: resident memory of the process and its children at most.
        about: version and compute type, for people.
        durations: audio seconds of each recording; empty if the system does not say.
    """

    seconds: float
    load_seconds: float
    heard: tuple[Heard, ...]
    peak_bytes: int
    about: str
    durations: tuple[float, ...] = ()


class System(Protocol):
    """A program to be measured: whisperd or another one."""

    name: str

    def run(self, recordings: Sequence[ReferenceRecording]) -> SystemRun:
        """Start the program, transcribe all recordings and end it.

        Raises:
            WhisperdError: the program failed on one of them.
        """
        ...


class Peer:
    """Another program; it gets one recording after the other."""

    def __init__(self, name: str, settings: Config) -> None:
        self.name = name
        self._settings = peer_settings(name, settings)

    def run(self, recordings: Sequence[ReferenceRecording]) -> SystemRun:
        """See `System`."""
        started = time.monotonic()
        with Conversation(self._settings) as peer, PeakMemory(peer.pid) as memory:
            loaded = peer.loaded()
            begun = time.monotonic()
            heard = tuple(peer.ask(recording) for recording in recordings)
            ended = time.monotonic()
        return SystemRun(ended - begun, begun - started, heard, memory.peak_bytes, loaded.about)


class Conversation:
    """A process of `whisperd.bench.programs` and the connection to it; a context manager."""

    def __init__(self, settings: Settings) -> None:
        self._name = settings.name
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "whisperd.bench", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": str(settings.engine.threads)},
            )
        self.pid = self._process.pid
        self._connection = PipeEnd(ours, ASKED, ANSWERED)
        self._connection.send(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()
        if error[0] is not None:
            self._process.kill()
        self._process.wait()

    def loaded(self) -> Loaded:
        """Wait until the program is ready."""
        answer = self._receive()
        assert isinstance(answer, Loaded)
        return answer

    def ask(self, recording: ReferenceRecording) -> Heard:
        """Have the program transcribe one recording."""
        self._connection.send(Listen(recording.path))
        answer = self._receive()
        assert isinstance(answer, Heard)
        return answer

    def _receive(self) -> object:
        try:
            answer = self._connection.receive()
        except (EOFError, ConnectionError):
            raise WhisperdError(f"{self._name} died, status {self._process.wait()}") from None
        if isinstance(answer, Broken):
            raise WhisperdError(f"{self._name}: {answer.reason}")
        return answer


def peer_settings(name: str, settings: Config) -> Settings:
    """The settings of another program: model, device, options and as many threads as whisperd has in all its workers."""
    options = settings.engine_options()
    engine = replace(options, threads=options.threads * settings.pool.workers, compute_type="auto")
    transcribe = resolve(settings.model_copy(update={"profiles": {}}), "").transcribe
    return Settings(name, engine, transcribe, find_ffmpeg(settings.media.ffmpeg))


def missing(name: str, settings: Config) -> str:
    """Why a program cannot be measured here; empty if it can."""
    try:
        if name == "openai-whisper":
            find(settings.model, settings.models_directory)
        elif name == "faster-whisper":
            if importlib.util.find_spec("faster_whisper") is None:
                return "not installed: pip install 'whisperd[faster-whisper]'"
            find_ct2(settings.model, settings.models_directory)
        elif shutil.which("whisper-cli") is None:
            return "whisper-cli is not on PATH"
        elif not (weights := ggml_model(settings.engine_options())).is_file():
            return f"no {weights}"
    except WhisperdError as error:
        return str(error)
    return ""
