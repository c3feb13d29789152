"""Signals, made readable: all work happens in the loop, none in a handler."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


class Signals:
    """A self-pipe (signal(7); `signal.set_wakeup_fd`): a context manager for the main thread."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in HANDLED:
            self._before[number] = signal.signal(number, _noted)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        self._old_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        signal.set_wakeup_fd(self._old_fd)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave us
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        """Return the descriptor, which is readable when there is something to `drain`."""
        return self._read

    def drain(self) -> list[signal.Signals]:
        """The signals that came since the last call."""
        got = b""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._read, 4096):
                got += chunk
        return [signal.Signals(number) for number in got if number in HANDLED]


def _noted(number: int, frame: FrameType | None) -> None:
    """Python needs a handler for the number to be written to the pipe."""
