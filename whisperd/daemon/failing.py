"""Workers that cannot load what their jobs need, once the daemon is at work: when each is tried again, and who is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.core import events

if TYPE_CHECKING:
    from whisperd.core.job import Failure

PAUSE_SECONDS_MAX = 300.0
DOUBLINGS_MAX = 20


class Failing:
    """The slots of the pool without a worker that works, and why; a kind of failure is told once until all work again."""

    def __init__(self, emitter: events.Emitter) -> None:
        self._emit = emitter.emit
        self._failures: dict[int, Failure] = {}
        self._tries: dict[int, int] = {}
        self._told: set[str] = set()

    def __len__(self) -> int:
        """How many workers cannot be used."""
        return len(self._failures)

    @property
    def latest(self) -> Failure | None:
        """Why the one that was tried last cannot be used."""
        return next(reversed(self._failures.values()), None)

    def add(self, number: int, failure: Failure) -> float:
        """A worker could not be used; returns how long to wait before the next try."""
        pause = min(PAUSE_SECONDS_MAX, 2.0 ** min(DOUBLINGS_MAX, self._tries.get(number, 0)))
        self._tries[number] = self._tries.get(number, 0) + 1
        self._failures.pop(number, None)
        self._failures[number] = failure
        if failure.message not in self._told:
            self._told.add(failure.message)
            self._emit(events.WorkersFail(failure, pause))
        return pause

    def works(self, number: int) -> None:
        """A worker is ready."""
        self._tries.pop(number, None)
        if self._failures.pop(number, None) is not None and not self._failures:
            self._told.clear()
            self._emit(events.WorkersWork())

    def try_now(self) -> None:
        """Forget the pauses: somebody may have repaired the cause."""
        self._tries.clear()
