"""A channel of notifications, which is a command, and one run of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from types import MappingProxyType
from typing import TYPE_CHECKING

from whisperd.core.display import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AGAIN = os.EX_TEMPFAIL  # exit status of a command that is to be run again later
NEVER = os.EX_UNAVAILABLE  # exit status of a sender whose receiver is gone for good
SENDER_SECONDS = 30.0  # for one webhook or mail, in total
KEPT_BYTES = 2000  # of a command's output
DRAINED_BYTES = 1 << 20  # read at most at one look: a command that prints without end must not stop the loop


@dataclass(frozen=True, slots=True)
class Channel:
    """A way to notify somebody: the command, the ends that it is run for, and its time limit.

    Attributes:
        kind: hook, webhook, mail, ...
        events: the ends, completed or failed.
        command: an argument list.
        timeout_seconds: after which the command is killed.
        is_repeatable: False for a command of the operator's, since nobody knows what it did before it failed.
        environment: variables for the command, beside those of the notification; secrets that must be no arguments.
        needs: a variable of the notification without which there is nothing to tell here; empty: none.
    """

    kind: str
    events: tuple[str, ...]
    command: tuple[str, ...]
    timeout_seconds: float
    is_repeatable: bool = True
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    needs: str = ""

    def is_interested(self, event: str, words: Mapping[str, str]) -> bool:
        """Whether it is to be told of a job that ended like this, with these variables."""
        return event in self.events and (not self.needs or self.needs in words)

    def is_worth_another_try(self, status: int | None) -> bool:
        """Whether to run it again after this exit status; None: it was killed at its deadline."""
        return status == AGAIN or (self.is_repeatable and status != NEVER)


def sender(
    kind: str,
    events: tuple[str, ...],
    *arguments: str,
    environment: Mapping[str, str] = MappingProxyType({}),
    needs: str = "",
) -> Channel:
    """A channel whose command is the module of this package that is named like its kind."""
    # -P: a file called ssl.py in the current directory must not be what `import ssl` finds
    command = (sys.executable, "-P", "-m", f"{__package__}.{kind}", *arguments)
    return Channel(kind, events, command, SENDER_SECONDS, environment=environment, needs=needs)


class Delivery:
    """One run of a channel's command: a child process that leads its own group, so that what it starts ends with it.

    Args:
        command: an argument list.
        environment: added to that of the daemon.
        data: its standard input.
        deadline: when it is killed, monotonic.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str], data: bytes, deadline: float) -> None:
        self.deadline = deadline
        self._kept = b""
        self._is_late = False
        with contextlib.ExitStack() as ours:
            given = os.memfd_create("notification")  # a pipe would fill up and block the loop
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

    def has_ended(self, now: float) -> bool:
        """Read what it prints, kill it if it is late, and tell whether it has ended."""
        self._drain()
        if now >= self.deadline and not self._is_late:
            self._is_late = True
            self.kill()
        return bool(wait([self.pidfd], timeout=0))

    def kill(self) -> None:
        """Kill the command and everything that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def reap(self) -> tuple[int | None, str]:
        """Return its exit status (None: killed at its deadline) and the start of its output, in one printable line."""
        self.kill()  # whatever it left behind; before the wait, or the number could be another group's
        status = self._process.wait()
        self._drain()
        os.close(self._output)
        os.close(self.pidfd)
        lines = self._kept.decode("utf-8", "surrogateescape").splitlines()
        output = " | ".join(printable(line.strip()) for line in lines if line.strip())
        return None if self._is_late else status, output

    def _drain(self) -> None:
        drained = 0
        with contextlib.suppress(BlockingIOError):
            while drained < DRAINED_BYTES and (chunk := os.read(self._output, 1 << 16)):
                self._kept += chunk[: KEPT_BYTES - len(self._kept)]
                drained += len(chunk)
