"""A real `whisperd run` in a process of its own, with a real notification socket, as the service manager would start it."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import wave
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

QUICK = {
    "engine": "scripted",
    "intake": {
        "settle_seconds": 0.2,
        "rescan_seconds": 1.0,
        "empty_seconds": 0.4,
        "truncated_seconds": 0.5,
        "min_free": 0,
    },
    "pool": {"retry_seconds": 0.1, "stop_grace_seconds": 5.0, "threads": 1},
    "output": {"formats": ["txt", "json"]},
}


def tone(path: Path, seconds: float = 1.0, rate: int = 16_000, frequency: float = 440.0) -> Path:
    """Write a sine tone as WAV, in one go."""
    samples = (np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate) * 12_000).astype("<i2")
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


def merged(base: dict, changes: dict) -> dict:
    """Settings with some changed, sections merged."""
    result = dict(base)
    for key, value in changes.items():
        result[key] = merged(result.get(key, {}), value) if isinstance(value, dict) else value
    return result


class Daemon:
    """One daemon over one spool; what it says, to the journal and to the service manager, is kept.

    Args:
        root: the spool.
        settings: what to change in QUICK.
        environment: what to add to its environment, a failpoint for one.
        once: end when all is done.
        prefix: a command that starts it, to take privileges away for one.
    """

    def __init__(
        self,
        root: Path,
        settings: dict | None = None,
        environment: dict | None = None,
        *,
        once: bool = False,
        prefix=(),
    ):
        self.root = root
        self.settings = merged(QUICK, settings or {})
        self.environment = environment or {}
        self.once = once
        self.prefix = prefix
        self.inbox, self.outbox = root / "inbox", root / "outbox"
        self.done, self.failed, self.work = root / "done", root / "failed", root / ".work"
        self.config = root.parent / f"{root.name}.yaml"
        self.lines: list[str] = []
        self.notices: list[str] = []
        self.process: subprocess.Popen | None = None
        self.configure({})

    def configure(self, changes: dict) -> None:
        """Write the configuration file."""
        self.settings = merged(self.settings, changes)
        self.config.write_text(yaml.safe_dump({"root": str(self.root), **self.settings}))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()
            self._close()

    def start(self) -> None:
        """Start it; `wait_ready` waits for it."""
        address = "\0" + f"whisperd-test-{os.getpid()}-{time.monotonic_ns()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(0.1)
        self.notices.clear()
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": "@" + address[1:],
            "WATCHDOG_USEC": "2000000",
            "WHISPERD_FAILPOINT": "",
            **self.environment,
        }
        command = [*self.prefix, sys.executable, "-m", "whisperd", "run", "--config", str(self.config)]
        self.process = subprocess.Popen(
            command + (["--once"] if self.once else []),
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env=environment,
        )
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._listen)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def _listen(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                self.notices += self._socket.recv(4096).decode().splitlines()

    def _close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()
        self.process.stderr.close()
        self.process = None

    def wait(self, predicate, *, within_seconds: float = 30.0, what: str = "the condition"):
        """Wait for a condition; the journal is in the message if it does not come."""
        deadline = time.monotonic() + within_seconds
        while not (value := predicate()):
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{what} did not come true within {within_seconds} s\n" + "\n".join(self.lines[-40:])
                )
            time.sleep(0.02)
        return value

    def wait_ready(self) -> None:
        """Wait for READY=1."""
        self.wait(lambda: "READY=1" in self.notices, what="READY=1")

    def wait_exit(self, within_seconds: float = 30.0) -> int:
        """Wait for its end; returns the exit status."""
        self.wait(lambda: self.process.poll() is not None, within_seconds=within_seconds, what="the end of the daemon")
        status = self.process.returncode
        self._close()
        return status

    def stop(self, number: int = signal.SIGTERM, within_seconds: float = 30.0) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self.process.send_signal(number)
        return self.wait_exit(within_seconds)

    def kill(self) -> None:
        """SIGKILL, as the kernel's OOM killer or a power cut would."""
        self.process.kill()
        self.process.wait()
        self._close()

    def logged(self, text: str) -> bool:
        """Whether a line of the journal holds this text."""
        return any(text in line for line in self.lines)

    def errors(self) -> list[str]:
        """The lines that `journalctl -p err` would show."""
        return [line for line in self.lines if line.startswith(("<3>", "<2>"))]

    def sidecar(self, name: str) -> dict | None:
        """What the sidecar of a file says; None while there is none."""
        try:
            return json.loads((self.outbox / f"{name}.status.json").read_bytes())
        except FileNotFoundError:
            return None

    def status(self, name: str) -> str | None:
        """`status` of its sidecar."""
        document = self.sidecar(name)
        return document and document["status"]

    def workers(self) -> list[int]:
        """The process ids of its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children]


def at_work(root: Path) -> list[str]:
    """The originals in `.work/`; unlike `Path.glob` this goes on where a job's folder is deleted while it is read."""
    return glob.glob("*/original*", root_dir=root / ".work")


def originals(root: Path) -> dict[str, list[str]]:
    """Where the uploads of a spool are: room -> the contents of the files there, as hexadecimal digests."""
    while True:
        with contextlib.suppress(FileNotFoundError):  # one was moved while it was read: look again
            rooms = {room: _digests((root / room).rglob("*")) for room in ("inbox", "done", "failed")}
            return {**rooms, ".work": _digests((root / ".work").glob("*/original*"))}


def _digests(paths: Iterable[Path]) -> list[str]:
    return sorted(
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path.is_file() and path.name[0] != "." and path.suffix != ".cancel"
    )
