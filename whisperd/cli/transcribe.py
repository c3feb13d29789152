"""`whisperd transcribe FILE...`: transcribes files without the daemon, in a worker process like the daemon's."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from whisperd.cli import add_spool_arguments
from whisperd.core import events
from whisperd.core.display import did_you_mean, printable
from whisperd.core.errors import EXIT_FAILED, EXIT_OK, BootError, ConfigError
from whisperd.core.job import Failure, Result
from whisperd.daemon.devices import Blame
from whisperd.daemon.pool import Interrupted, Pool
from whisperd.protocol import Failed, Finished, Heartbeat, Work
from whisperd.settings import config, profiles
from whisperd.settings.sections import SETTABLE
from whisperd.spool import names
from whisperd.spool.durable import Folder, move

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator

    from whisperd.settings.config import Config

STDIN = "-"
NOT_TEXT = {"docx"}  # formats that are never written to standard output
ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `transcribe`."""
    add_spool_arguments(parser)
    parser.add_argument("files", nargs="+", metavar="FILE", help="a recording; - reads it from standard input")
    parser.add_argument(
        "--output-dir",
        type=Path,
        metavar="DIR",
        help="where to write the transcripts (default: here; the text of a single file is printed)",
    )
    parser.add_argument("--profile", metavar="GLOB", help="use the options of this profile of the configuration")
    parser.add_argument("--model", metavar="NAME")
    parser.add_argument("--language", metavar="CODE")
    parser.add_argument("--task", choices=("transcribe", "translate"))
    parser.add_argument("--formats", metavar="LIST", help="such as txt,srt")


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One file of the command line, and the directory in which its worker writes."""

    label: str  # as the user gave it, safe for a terminal
    name: str  # from which the names of the transcripts are made
    source: Path
    directory: Path
    link: str  # its URL relative to the transcript page


def main(arguments: argparse.Namespace) -> int:
    """Transcribe each file; exit 1 if one failed."""
    for number in ENDING:
        signal.signal(number, signal.default_int_handler)  # so that the scratch directory is removed before the end
    prints = _prints(arguments)
    settings = _settings(arguments, prints=prints)
    given = [file for file in arguments.files if _is_usable(file)]
    code = EXIT_OK if len(given) == len(arguments.files) else EXIT_FAILED
    if not given:
        return code
    target = arguments.output_dir or Path()
    scratch = _scratch(None if prints else target)
    session = Session(settings)
    bars = ProgressBars(settings.model)
    text = b""
    try:
        with bars:
            recordings = [_recording(file, scratch / str(number), target) for number, file in enumerate(given)]
            for recording, outcome in session.transcribe(recordings, bars.show):
                bars.remove(recording)
                if isinstance(outcome, Failure):
                    _complain(recording.label, outcome.message, outcome.hint)
                    code = EXIT_FAILED
                elif prints:
                    (format_,) = outcome.outputs
                    text = (recording.directory / "outputs" / format_).read_bytes()
                else:
                    for path in _place(recording.directory / "outputs", outcome, recording.name, target):
                        print(path)
                shutil.rmtree(recording.directory, ignore_errors=True)
    finally:
        with _uninterrupted():
            session.close()
            shutil.rmtree(scratch, ignore_errors=True)
    sys.stdout.flush()
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
    return code


class Session:
    """One worker process, which transcribes as many recordings at once as its engine can."""

    def __init__(self, settings: Config) -> None:
        options = settings.pool_options()
        self._spec = profiles.resolve(settings, "")
        self._engine = settings.engine_options()
        self._pool = Pool(
            options.evolve(workers=1, workers_by_device={}, idle_unload_seconds=0.0, max_memory=None),
            self._engine,
            events.Emitter(),
            is_daemon=False,
        )
        self._running: dict[str, Recording] = {}
        self._alone: deque[Recording] = deque()  # to be tried again, each by itself
        self._shared: set[str] = set()  # jobs that ran beside others, which may be the reason if they fail
        self._pool.tick(time.monotonic())  # loads the model while standard input is read

    def transcribe(
        self, recordings: Iterable[Recording], show: Callable[[Recording, Heartbeat], None]
    ) -> Iterator[tuple[Recording, Result | Failure]]:
        """Yield the outcome of each recording as soon as it is known; `show` is called with every heartbeat.

        Raises:
            BootError: the model cannot be loaded.
        """
        waiting = deque(recordings)
        while True:
            now = time.monotonic()
            for message in self._pool.collect(now):
                if isinstance(message, Heartbeat):
                    show(self._running[message.job_id], message)
                elif isinstance(message, Finished):
                    yield self._running.pop(message.job_id), message.result
                elif isinstance(message, Failed | Interrupted):
                    recording = self._running.pop(message.job_id)
                    if isinstance(message, Interrupted) and message.blame is Blame.NONE:
                        waiting.append(recording)
                    elif message.job_id in self._shared and message.failure.retryable:
                        self._shared.remove(message.job_id)
                        self._alone.append(recording)
                    elif isinstance(message, Interrupted) and message.blame is Blame.SUSPECT:
                        self._alone.append(recording)  # the engine had done other work before: a fresh one decides
                    else:
                        yield recording, message.failure
            self._pool.tick(now)
            if trouble := self._pool.trouble:  # the daemon would keep trying, but here a person waits
                raise BootError(trouble.message, hint=trouble.hint)
            if not self._assign(waiting, now):
                return
            wait(self._pool.waitables(), timeout=1.0)

    def _assign(self, waiting: deque[Recording], now: float) -> bool:
        """Give the worker as much as it can take; return False if all is done."""
        while True:
            alone = bool(self._alone)
            queue = self._alone or waiting
            if not queue:
                return bool(self._running)
            child = None if alone and self._running else self._pool.free(self._engine, alone=alone)
            if child is None:
                return True
            recording = queue.popleft()
            work = Work(
                recording.directory.name,
                recording.directory,
                recording.source,
                self._spec,
                printable(recording.name),
                recording.link,
            )
            self._pool.assign(child, work, now, alone=alone)
            self._running[work.job_id] = recording
            if len(self._running) > 1:
                self._shared |= self._running.keys()

    def close(self) -> None:
        """End the worker."""
        self._pool.kill_all()


def _prints(arguments: argparse.Namespace) -> bool:
    """Whether the transcript goes to standard output: that of one file, in one format that is text."""
    formats = set((arguments.formats or "txt").split(","))
    is_one = len(arguments.files) == len(formats) == 1
    return arguments.output_dir is None and is_one and not formats & NOT_TEXT


def _settings(arguments: argparse.Namespace, *, prints: bool) -> Config:
    settings = config.load(arguments.config, root=arguments.root)
    values: dict[str, Any] = settings.model_dump()
    chosen = settings.profiles.get(arguments.profile, {})
    if arguments.profile is not None and arguments.profile not in settings.profiles:
        known = ", ".join(settings.profiles) or "there is none"
        similar = did_you_mean(arguments.profile, settings.profiles)
        problem = f"--profile: no such profile: {printable(arguments.profile)} (known: {known}){similar}"
        raise ConfigError("command line", [problem])
    for key, value in chosen.items():
        section, field = SETTABLE.get(key, ("", key))
        (values[section] if section else values)[field] = value
    values["profiles"] = {}
    if arguments.model:
        values["model"] = arguments.model
    for key in ("language", "task"):
        if getattr(arguments, key):
            values["transcription"][key] = getattr(arguments, key)
    if arguments.formats or prints:
        values["output"]["formats"] = tuple((arguments.formats or "txt").split(","))
    values["pool"]["workers"] = 1
    return config.validate(values, source="command line")


def _is_usable(file: str) -> bool:
    """Whether a file can be opened; otherwise the reason is printed."""
    if file == STDIN:
        if not sys.stdin.isatty():
            return True
        hint = "redirect a recording to it: whisperd transcribe - < interview.mp3"
        return _complain(STDIN, "standard input is a terminal", hint)
    label = printable(file)
    if _URL.match(file) and not os.path.lexists(file):
        hint = f"download it first, or pipe it in: curl -L {label} | whisperd transcribe -"
        return _complain(label, "this is a URL, and whisperd fetches no recordings from the network", hint)
    try:
        status = os.stat(file)
        if stat.S_ISDIR(status.st_mode):
            return _complain(label, "is a folder", "name the recordings in it")
        if not os.access(file, os.R_OK):
            return _complain(label, "cannot be read: permission denied", "chmod, or run whisperd as its owner")
    except FileNotFoundError:
        return _complain(label, "there is no such file", "check the spelling, and in which folder you are")
    except OSError as error:
        return _complain(label, f"cannot be read: {error.strerror}", "")
    return True


def _complain(label: str, message: str, hint: str) -> bool:
    print(f"whisperd: {label}: {message}" + (f" ({hint})" if hint else ""), file=sys.stderr)
    return False


def _scratch(parent: Path | None) -> Path:
    """Make the directory in which the worker writes: beside the results, or that of temporary files."""
    try:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=".whisperd-", dir=parent)).absolute()
    except OSError as error:
        hint = "choose another --output-dir" if parent is not None else "set TMPDIR to a directory with room"
        raise BootError(f"cannot write into {parent or 'TMPDIR'}: {error.strerror}", hint=hint) from error


def _recording(file: str, directory: Path, target: Path) -> Recording:
    """Make the directory of a recording; what comes through a pipe is copied there, because ffmpeg must seek in it."""
    directory.mkdir()
    if file != STDIN and not stat.S_ISFIFO(os.stat(file).st_mode):
        link = quote(os.fsencode(os.path.relpath(file, target)))
        return Recording(printable(file), Path(file).name, Path(file).absolute(), directory, link)
    try:
        with contextlib.ExitStack() as stack:
            stream = sys.stdin.buffer if file == STDIN else stack.enter_context(open(file, "rb"))
            copy = stack.enter_context(tempfile.NamedTemporaryFile(dir=directory, delete=False))
            shutil.copyfileobj(stream, copy)
    except OSError as error:
        raise BootError(f"cannot copy {printable(file)} to {directory.parent}: {error.strerror}") from error
    name = "stdin" if file == STDIN else Path(file).name
    return Recording(printable(file), name, Path(copy.name), directory, name)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold signals back, so that Ctrl-C comes before or after this, and not in between."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _place(outputs: Path, result: Result, file: str, target: Path) -> list[Path]:
    """Move the transcripts to names that are free: if one is taken, all get the same number."""
    with Folder(outputs) as source, Folder(target) as folder, _uninterrupted():
        for number in itertools.count(1):
            wanted = {kind: names.output(names.numbered(file, number), kind) for kind in result.outputs}
            if not any(folder.exists(name) for name in wanted.values()):
                for kind, name in wanted.items():
                    move(source, kind, folder, name)
                return [target / name for name in wanted.values()]
    raise AssertionError


class ProgressBars:
    """A bar for each recording at work, on a terminal; nothing elsewhere."""

    def __init__(self, model: str) -> None:
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("left", style="progress.remaining"),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            redirect_stdout=sys.stdout.isatty(),  # elsewhere the names of the results would go to the terminal
            transient=True,
        )
        self._loading = self._bars.add_task(f"loading the model {printable(model)}", total=None)
        self._tasks: dict[Recording, Any] = {}

    def __enter__(self) -> None:
        self._bars.start()

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def show(self, recording: Recording, heartbeat: Heartbeat) -> None:
        """Show how far a recording is."""
        if not self._tasks:
            self._bars.update(self._loading, visible=False)
        if recording not in self._tasks:
            self._tasks[recording] = self._bars.add_task(recording.label, total=None)
        done, total = heartbeat.processed_seconds, heartbeat.duration_seconds
        self._bars.update(self._tasks[recording], completed=done, total=total)

    def remove(self, recording: Recording) -> None:
        """Take away the bar of a recording that is done."""
        if recording in self._tasks:
            self._bars.remove_task(self._tasks.pop(recording))
