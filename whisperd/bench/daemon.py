"""Measures whisperd as a user runs it: `whisperd run` over a temporary spool into which recordings are moved."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from whisperd.bench.memory import PeakMemory
from whisperd.bench.programs import Heard
from whisperd.bench.systems import SystemRun
from whisperd.core.errors import WhisperdError
from whisperd.spool import durable, names
from whisperd.spool.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from whisperd.bench.recordings import ReferenceRecording
    from whisperd.settings.config import Config

LOOK_SECONDS = 0.02
END_SECONDS = 60.0


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

    @contextmanager
    def _daemon(self, place: Path, root: Path) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
        """Start a daemon, wait for its READY and yield it with its log; stop it at the end."""
        values = self._settings.model_dump(mode="json")
        # These settings could keep uploads waiting: no marker files are made, and /tmp may have less room than the spool.
        intake = values["intake"] | {"done_marker": "", "min_free": 0}
        output = values["output"] | {"formats": ["txt"]}
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
