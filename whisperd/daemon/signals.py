"""Turns signals into something that the loop can wait for, so that handlers do no work."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Self

from whisperd.daemon.loop import NEVER, Part

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


class Signals(Part):
    """The part of the loop that handles signals, by a self-pipe (`signal.set_wakeup_fd`); a context manager of the main thread.

    Args:
        handle: called in the loop with each signal that came, and the time.
    """

    def __init__(self, handle: Callable[[signal.Signals, float], None]) -> None:
        self._handle = handle
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

    def waitables(self) -> list[int]:
        """Return the descriptor that becomes readable when a signal comes."""
        return [self._read]

    def tick(self, now: float) -> float:
        """Handle the signals since the last call."""
        for number in self._drain():
            self._handle(number, now)
        return NEVER

    def _drain(self) -> list[signal.Signals]:
        got = b""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._read, 4096):
                got += chunk
        return [signal.Signals(number) for number in got if number in HANDLED]


def _noted(number: int, frame: FrameType | None) -> None:
    """Do nothing; Python needs a handler to write the signal's number to the pipe."""
