"""The loop of the daemon, the interface of the parts that it runs, and the part that wakes it for signals.

Nothing here blocks for long; a part that takes long holds up all others, and the service manager's watchdog.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from whisperd.core import events
from whisperd.core.slices import StepTimes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType, TracebackType

    from whisperd.settings.config import Config

AT_ONCE, NEVER = float("-inf"), float("inf")  # when a part wants its next tick
BREATH_SECONDS = 0.01  # between two turns, unless a part wants its tick at once
LONGEST_SECONDS = 3600.0
BROKEN_SECONDS = 60.0  # how soon a listener that raised is tried again
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Part(Protocol):
    """Base of the parts that the loop runs; a subclass overrides what it needs."""

    def tick(self, now: float) -> float:
        """Do what is due for a slice of time; returns the time of the next call, unless something becomes readable before."""

    def waitables(self) -> list[Any]:
        """Return the descriptors that become readable when there is something to do."""
        return []

    def configure(self, config: Config) -> None:  # noqa: ARG002  # of no use to this part
        """Use this configuration from now on."""
        return

    def close(self) -> None:
        """End what runs and release what is held."""
        return


class Guarded(Part):
    """A part for a listener, whose errors are logged and do not affect other parts."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._logged: set[str] = set()

    def tick(self, now: float) -> float:
        """Call the tick of the listener; after an error pause it for a while."""
        return self._try(lambda: self._part.tick(now), now + BROKEN_SECONDS)

    def waitables(self) -> list[Any]:
        """See `Part`."""
        return self._try(self._part.waitables, [])

    def configure(self, config: Config) -> None:
        """See `Part`."""
        self._try(lambda: self._part.configure(config), None)

    def close(self) -> None:
        """See `Part`."""
        self._try(self._part.close, None)

    def _try(self, act: Callable[[], T], otherwise: T) -> T:
        try:
            return act()
        except Exception as error:  # noqa: BLE001  # whatever it is, the jobs must not pay for it
            text = f"{type(self._part).__name__} failed: {type(error).__name__}"
            if text not in self._logged:  # with its traceback once, or it would fill the journal
                self._logged.add(text)
                _log.error("%s; the daemon continues without it, please report this", text, exc_info=error)
            return otherwise


class Signals(Part):
    """A part that handles signals, by a self-pipe (`signal.set_wakeup_fd`); a context manager of the main thread.

    The handlers themselves do no work.

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


class Loop:
    """Calls the tick of each part in order, then waits until one of them has something to do.

    Args:
        parts: what it drives.
        emitter: told after each turn how long the steps took.
    """

    def __init__(self, parts: Iterable[Part], emitter: events.Emitter) -> None:
        self._all = tuple(parts)
        self._active = list(self._all)
        self._emit = emitter.emit

    def run(self, is_over: Callable[[], bool]) -> None:
        """Run until `is_over` says so after a turn."""
        while True:
            now = time.monotonic()
            due = self._turn(now)
            if is_over():
                return
            things = [thing for part in self._active for thing in part.waitables()]
            wait(things, timeout=0.0 if due == AT_ONCE else min(max(BREATH_SECONDS, due - now), LONGEST_SECONDS))

    def retire(self, parts: Iterable[Part]) -> None:
        """Stop calling some parts, because the daemon stops."""
        retired = {id(part) for part in parts}
        self._active = [part for part in self._active if id(part) not in retired]

    def configure(self, config: Config) -> None:
        """Pass a new configuration to all parts."""
        for part in self._all:
            part.configure(config)

    def close(self) -> None:
        """Close all parts, in their order."""
        for part in self._all:
            part.close()

    def _turn(self, now: float) -> float:
        times, due = StepTimes(), NEVER
        for part in self._all:
            if any(part is active for active in self._active):  # one may be retired by another in this very turn
                due = min(due, part.tick(now))
                times.mark()
        self._emit(events.LoopTurned(tuple(times.seconds)))
        return due


def _noted(number: int, frame: FrameType | None) -> None:
    """Do nothing; Python needs a handler to write the signal's number to the pipe."""
