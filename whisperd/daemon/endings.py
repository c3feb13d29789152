"""The jobs whose outcome is known: written down in the spool, again and again until that succeeds.

An original that was touched during the run is read again before its result counts, in slices of the loop's time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd.core import events
from whisperd.core.display import printable
from whisperd.core.job import Failure, Job, Phase, Progress, Result
from whisperd.core.slices import Slice
from whisperd.intake.recheck import OriginalState, recheck

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.daemon.duplicates import Duplicates
    from whisperd.daemon.shown import Shown
    from whisperd.spool.store import Store

SLICE_SECONDS = 0.02  # of one turn
WRITER_SECONDS = 60.0  # a result waits so long for somebody who still has the original open for writing ...
WRITER_LOOK_SECONDS = 0.5  # ... and this is how often it is seen to
PAUSE_SECONDS = (5.0, 60.0)  # first and longest pause before an end that could not be written is tried again


@dataclass(slots=True)
class Ending:
    """A job whose outcome is known; writing it down may take several tries."""

    job: Job
    outcome: Result | Failure
    next_at: float
    pause: float = 0.0
    is_unchecked: bool = False  # the original is still to be compared with what the worker read
    check: Iterator[OriginalState | None] | None = None  # that comparison, once it has begun
    writer_since: float | None = None  # when it first showed somebody who has the original open for writing


class Endings:
    """Every job between its outcome and its place in done/ or failed/."""

    def __init__(self, store: Store, emitter: events.Emitter, duplicates: Duplicates, shown: Shown) -> None:
        self._store = store
        self._emit = emitter.emit
        self._duplicates = duplicates
        self._shown = shown
        self._endings: dict[str, Ending] = {}
        self.completed = 0
        self.failed = 0

    def __len__(self) -> int:
        """How many are not written down yet."""
        return len(self._endings)

    def times(self) -> list[float]:
        """When `tick` has something to do, for each of them."""
        return [ending.next_at for ending in self._endings.values()]

    def tick(self, now: float) -> None:
        """Try again what could not be written down, and compare originals a little further."""
        share = Slice(SLICE_SECONDS)
        due = [ending for ending in self._endings.values() if ending.next_at <= now]
        for ending in sorted(due, key=lambda ending: (ending.check is not None, ending.next_at)):
            self._write(ending, now, share)
            if share.is_used_up():
                return

    def begin(self, job: Job, outcome: Result | Failure, now: float, *, is_unchecked: bool = False) -> None:
        """Write an end down, at once if it can be; with `is_unchecked` only if the original is what was read."""
        ending = self._endings[job.id] = Ending(job, outcome, now, is_unchecked=is_unchecked)
        self._write(ending, now, Slice(0.0))

    @property
    def is_comparing(self) -> bool:
        """Whether an original is being read."""
        return any(ending.check is not None for ending in self._endings.values())

    def unchecked(self) -> list[Job]:
        """The jobs whose result does not count yet."""
        return [ending.job for ending in self._endings.values() if ending.is_unchecked]

    def forget_gone(self, job: Job) -> bool:
        """Let go of a job, if somebody has removed its files; whether that is so."""
        try:
            if not self._store.is_gone(job):
                return False
        except OSError:
            return False
        self._store.forget(job)
        self._emit(events.JobGone(job))
        return True

    def _write(self, ending: Ending, now: float, share: Slice) -> None:
        try:
            if ending.is_unchecked and self._must_wait(ending, now, share):
                return
            if isinstance(ending.outcome, Result):
                job = self._store.finish(ending.job, ending.outcome)
            else:
                job = self._store.fail(ending.job, ending.outcome)
        except OSError as error:
            ending.check = None
            if isinstance(error, FileNotFoundError) and self.forget_gone(ending.job):
                del self._endings[ending.job.id]
                return
            ending.pause = min(PAUSE_SECONDS[1], ending.pause * 2) if ending.pause else PAUSE_SECONDS[0]
            ending.next_at = now + ending.pause
            where = f" ({printable(str(error.filename))})" if error.filename else ""
            self._emit(events.TransitionDelayed(ending.job, f"{error.strerror}{where}", ending.pause))
            return
        del self._endings[ending.job.id]
        if isinstance(ending.outcome, Result):
            self.completed += 1
            self._duplicates.remember(job, ending.outcome)
            self._emit(events.JobFinished(job, ending.outcome))
        else:
            self.failed += 1
            self._emit(events.JobFailed(job, ending.outcome))

    def _must_wait(self, ending: Ending, now: float, share: Slice) -> bool:
        """Whether the result must wait, or is void, because somebody wrote to the original meanwhile."""
        job = ending.job
        state = self._compare_on(ending, share)
        if state is None:
            ending.next_at = now
            return True
        if state is OriginalState.CHANGED:
            name = self._store.release(job)
            del self._endings[job.id]
            self._emit(events.UploadGivenBack(job, name))
            return True
        if state is OriginalState.WRITER and (
            ending.writer_since is None or now - ending.writer_since < WRITER_SECONDS
        ):
            if ending.writer_since is None:
                ending.writer_since = now
                self._show(ending, "somebody still has the recording open for writing")
            ending.next_at = now + WRITER_LOOK_SECONDS
            return True
        ending.is_unchecked = False
        return False

    def _compare_on(self, ending: Ending, share: Slice) -> OriginalState | None:
        """Read at least one block more of an original; None if it was not the last one."""
        assert isinstance(ending.outcome, Result)
        if ending.check is None:
            ending.check = recheck(self._store.layout.job_directory(ending.job.id), ending.job, ending.outcome.sha256)
            if (state := next(ending.check)) is None:
                self._show(ending, "the recording was touched while it was transcribed; its content is compared")
        else:
            state = next(ending.check)
        while state is None and not share.is_used_up():
            state = next(ending.check)
        if state is not None:
            ending.check = None
        return state

    def _show(self, ending: Ending, reason: str) -> None:
        assert isinstance(ending.outcome, Result)
        seconds = ending.outcome.duration_seconds
        self._shown.show(ending.job, Progress(Phase.PUBLISHING, seconds, seconds), reason=reason)
