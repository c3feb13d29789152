"""Systems that can be measured: whisperd as a user runs it, and other programs, each started afresh for each run."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, Self

from whisperd.bench.programs import ANSWERED, ASKED, Broken, Heard, Listen, Loaded, Settings, ggml_model
from whisperd.core.devices import named
from whisperd.core.errors import WhisperdError
from whisperd.engine.weights.find import find, find_ct2
from whisperd.media.ffmpeg import find_ffmpeg
from whisperd.protocol import PipeEnd
from whisperd.settings.profiles import resolve
from whisperd.spool import durable, names
from whisperd.spool.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from whisperd.bench.recordings import ReferenceRecording
    from whisperd.settings.config import Config

# Variables by which a library uses fewer instructions than the processor has, to measure for smaller processors.
INSTRUCTION_SETS: Final = {
    "avx512-vnni": {
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI",
        "ATEN_CPU_CAPABILITY": "avx512",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512_E1",
        "FBGEMM_ENABLE_INSTRUCTIONS": "AVX512_E1",
        "CT2_FORCE_CPU_ISA": "AVX512",
    },
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",
        "CT2_FORCE_CPU_ISA": "AVX2",
    },
}
LOOK_SECONDS = 0.02
END_SECONDS = 60.0
SAMPLE_SECONDS = 0.1  # between two looks at the memory of a process


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


class Daemon:
    """whisperd over a temporary spool, with the configuration of the user except for paths and formats."""

    name = "whisperd"

    def __init__(self, settings: Config) -> None:
        self._settings = settings

    def run(self, recordings: Sequence[ReferenceRecording]) -> SystemRun:
        """Move all recordings into the inbox at once and wait for the end of the last job.

        Raises:
            WhisperdError: the daemon did not start, or a recording failed.
        """
        with tempfile.TemporaryDirectory(prefix="whisperd-bench-") as scratch:
            place = Path(scratch)
            layout = Layout(place / "spool")
            layout.create()
            staged = [
                Path(shutil.copy(recording.path, place / f"{number:05}{recording.path.suffix}"))
                for number, recording in enumerate(recordings)
            ]
            started = time.monotonic()
            with self._daemon(place, layout.root) as (process, log), PeakMemory(process.pid) as memory:
                begun = time.monotonic()
                with durable.Folder(place) as source, durable.Folder(layout.inbox) as inbox:
                    for path in staged:
                        durable.move(source, path.name, inbox, path.name)
                _wait_for_all(layout, len(staged), process, log)
                ended = time.monotonic()
            statuses = [_status_of(layout, path.name) for path in staged]
            heard = tuple(
                Heard((layout.outbox / names.output(path.name, "txt")).read_text("utf-8"), status["language"] or "")
                for path, status in zip(staged, statuses, strict=True)
            )
        last = statuses[-1]
        about = f"{last['engine']} {last['model']} on {last['device']}, {_decoding(self._settings)}"
        durations = tuple(status["duration_seconds"] for status in statuses)
        return SystemRun(ended - begun, begun - started, heard, memory.peak_bytes, about, durations)

    @contextlib.contextmanager
    def _daemon(self, place: Path, root: Path) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
        """Start a daemon, wait for its READY and yield it with its log; stop it at the end."""
        values = self._settings.model_dump(mode="json")
        # These settings could keep uploads waiting: no marker files are made, and /tmp may have less room than the spool.
        intake = values["intake"] | {"done_marker": "", "min_free": 0}
        output = values["output"] | {"formats": ["txt"], "layout": "raw"}
        values |= {"root": str(root), "intake": intake, "output": output, "log_level": "warning"}
        with durable.Folder(place) as folder:
            durable.write(folder, "whisperd.yaml", json.dumps(values).encode())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices, tempfile.TemporaryFile() as log:
            notices.bind(str(place / "notify"))
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "whisperd", "run", "--config", str(place / "whisperd.yaml")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=os.environ | {"NOTIFY_SOCKET": str(place / "notify")},
            )
            try:
                _wait_ready(process, notices, log)
                notices.close()  # nothing reads further messages
                yield process, log
                process.send_signal(signal.SIGTERM)
                process.wait(END_SECONDS)
            finally:
                process.kill()
                process.wait()


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
                [sys.executable, "-P", "-m", "whisperd.bench.programs", str(theirs.fileno())],
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
    device = named(options.device)[0]
    engine = replace(options, device=device, threads=options.threads * settings.pool.workers, compute_type="auto")
    transcribe = resolve(settings.model_copy(update={"profiles": {}}), "").transcribe
    # whisperd's own words cost next to nothing; another program looks for them only if they are asked for.
    transcribe = transcribe.evolve(word_timestamps=bool(settings.transcription.word_timestamps))
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
            if importlib.util.find_spec("pywhispercpp") is None:
                return "not installed: pip install pywhispercpp, or put whisper-cli on PATH"
            find(settings.model, settings.models_directory)
        elif not (weights := ggml_model(settings.engine_options())).is_file():
            return f"no {weights}"
    except WhisperdError as error:
        return str(error)
    return ""


class PeakMemory:
    """Samples the resident memory of a process tree ten times a second while the `with` statement lasts.

    Pages that several processes share count once for each of them.
    """

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        self.peak_bytes = max(self.peak_bytes, sum(resident_bytes(pid) for pid in tree(self._pid)))


def tree(pid: int) -> list[int]:
    """List the ids of a process and its descendants (proc(5))."""
    found = [pid]
    for parent in found:  # grows while it is read
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def resident_bytes(pid: int) -> int:
    """The resident memory of one process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _wait_ready(process: subprocess.Popen[bytes], notices: socket.socket, log: IO[bytes]) -> None:
    notices.settimeout(0.1)
    while True:
        try:
            said = notices.recv(4096)
        except TimeoutError:
            _check_alive(process, log)
        else:
            if b"READY=1" in said.splitlines():
                return


def _wait_for_all(layout: Layout, count: int, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    """Wait until done/ holds all originals; since they move last, all transcripts are there too."""
    while len(os.listdir(layout.done)) < count:
        if failed := os.listdir(layout.failed):
            error = _status_of(layout, failed[0])["error"]
            raise WhisperdError(f"whisperd failed on one of the recordings: {error['message']}", hint=error["hint"])
        _check_alive(process, log)
        time.sleep(LOOK_SECONDS)


def _check_alive(process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    if process.poll() is not None:
        log.seek(0)
        said = log.read().decode("utf-8", "replace").strip().splitlines()
        raise WhisperdError(
            f"whisperd ended with status {process.returncode}: {said[-1] if said else 'it printed nothing'}"
        )


def _status_of(layout: Layout, name: str) -> dict[str, Any]:
    status: dict[str, Any] = json.loads((layout.outbox / names.status_file(name)).read_bytes())
    return status


def _decoding(settings: Config) -> str:
    if settings.engine != "openai-whisper":
        return settings.compute_type
    return f"{settings.decoding}, {settings.compute_type}" if settings.decoding == "batched" else settings.decoding
