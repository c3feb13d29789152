"""One command that tells somebody: started, watched from a loop that never waits for it, and ended at its deadline."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from whisperd.core.display import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT_BYTES = 2000  # of what it prints
DRAINED_BYTES = 1 << 20  # thrown away at one look, so that a chatty command does not hang, and does not hang the loop


class Delivery:
    """A child process that leads a group of its own: what it started ends with it.

    Args:
        command: an argument list.
        environment: added to that of the daemon.
        data: its standard input.
        deadline: by when it must have ended, monotonic.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str], data: bytes, deadline: float) -> None:
        self.deadline = deadline
        self._kept = b""
        self._late = False
        with contextlib.ExitStack() as ours:
            given = os.memfd_create("notice")  # a pipe would fill up, and block whoever writes
            ours.callback(os.close, given)
            os.write(given, data)
            os.lseek(given, 0, os.SEEK_SET)
            self._output, theirs = os.pipe2(os.O_CLOEXEC)
            ours.callback(os.close, theirs)
            os.set_blocking(self._output, False)
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=given,
                    stdout=theirs,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment},
                    start_new_session=True,
                )
            except BaseException:
                os.close(self._output)
                raise
        self.pidfd = os.pidfd_open(self._process.pid)

    def look(self, now: float) -> bool:
        """Throw away what it prints too much, end it when it is late; True once it has ended."""
        self._drain()
        if now >= self.deadline and not self._late:
            self._late = True
            self.kill()
        return bool(wait([self.pidfd], timeout=0))

    def kill(self) -> None:
        """End it, and what it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def reap(self) -> tuple[int | None, str]:
        """Its exit status (None: killed at its deadline) and the beginning of what it printed, in one printable line."""
        self.kill()  # what it left behind; before the wait, or the number could be another group's
        status = self._process.wait()
        self._drain()
        os.close(self._output)
        os.close(self.pidfd)
        lines = self._kept.decode("utf-8", "surrogateescape").splitlines()
        said = " | ".join(printable(line.strip()) for line in lines if line.strip())
        return None if self._late else status, said

    def _drain(self) -> None:
        drained = 0
        with contextlib.suppress(BlockingIOError):
            while drained < DRAINED_BYTES and (chunk := os.read(self._output, 1 << 16)):
                self._kept += chunk[: KEPT_BYTES - len(self._kept)]
                drained += len(chunk)
