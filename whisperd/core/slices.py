"""The supervisor's time in slices: what is not done when its slice is over continues at the next turn of the loop.

No step of the loop is to take longer than `STEP_SECONDS`, or workers, signals and the service manager's watchdog wait for
it. What grows with the number of files, or with their size, is therefore cut into pieces of a few system calls each, and
the clock is asked between two of them. One system call cannot be cut: while a disk or a mount does not answer, the loop
waits for it, and `whisperd_loop_step_seconds` shows that it did.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections import OrderedDict
    from collections.abc import Iterator

STEP_SECONDS = 0.05
SLICE_SECONDS = 0.01  # a step has up to five
LONG_SLICE_SECONDS = 0.04  # of a step that has only one

T = TypeVar("T")


class Slice:
    """A bounded share of one turn, for work that consists of pieces.

    Args:
        seconds: how long it lasts; the first piece fits, however long it takes.
    """

    __slots__ = ("_asked_at", "_end")

    def __init__(self, seconds: float | None = None) -> None:
        self._asked_at = time.monotonic()
        self._end = self._asked_at + (SLICE_SECONDS if seconds is None else seconds)

    def is_used_up(self) -> bool:
        """To be asked after each piece: whether another one like it would take too long, so that the rest has to wait."""
        now = time.monotonic()
        piece, self._asked_at = now - self._asked_at, now
        return now + piece > self._end or now >= self._end


class StepTimes:
    """How long each step of one turn took."""

    def __init__(self) -> None:
        self._began_at = time.monotonic()
        self.seconds: list[float] = []

    def mark(self) -> None:
        """A step has ended, and the next one begins."""
        now = time.monotonic()
        self.seconds.append(now - self._began_at)
        self._began_at = now


def drained(queue: OrderedDict[T, None], seconds: float | None = None) -> Iterator[T]:
    """Take from the front of a queue until it is empty or the slice is over; at least one is taken."""
    share = Slice(seconds)
    while queue:
        yield queue.popitem(last=False)[0]
        if share.is_used_up():
            return


def advance(work: Iterator[object], seconds: float | None = None) -> bool:
    """Let an iterator take its steps for one slice; False once it has come to its end."""
    share = Slice(seconds)
    return any(share.is_used_up() for _ in work)
