"""The jobs whose outcome is known: written down in the spool, again and again until that succeeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd import events
from whisperd.intake.recheck import State, recheck
from whisperd.job import Failure, Job, Phase, Progress, Result, printable
from whisperd.spool.claims import is_gone

if TYPE_CHECKING:
    from whisperd.daemon.duplicates import Duplicates
    from whisperd.daemon.shown import Shown
    from whisperd.spool.store import Store

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
    unchecked_since: float | None = None  # the original is still to be compared with what the worker read


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
        """Try again what could not be written down."""
        for ending in [ending for ending in self._endings.values() if ending.next_at <= now]:
            self._write(ending, now)

    def begin(self, job: Job, outcome: Result | Failure, now: float, *, unchecked_since: float | None = None) -> None:
        """Write an end down, at once if it can be; with `unchecked_since` only if the original is what was read."""
        ending = self._endings[job.id] = Ending(job, outcome, now, unchecked_since=unchecked_since)
        self._write(ending, now)

    def forget_gone(self, job: Job) -> bool:
        """Let go of a job, if somebody has removed its files; whether that is so."""
        try:
            if not is_gone(self._store.layout, job):
                return False
        except OSError:
            return False
        self._store.forget(job)
        self._emit(events.JobGone(job))
        return True

    def _write(self, ending: Ending, now: float) -> None:
        try:
            if ending.unchecked_since is not None and self._is_disturbed(ending, ending.unchecked_since, now):
                return
            if isinstance(ending.outcome, Result):
                job = self._store.finish(ending.job, ending.outcome)
            else:
                job = self._store.fail(ending.job, ending.outcome)
        except OSError as error:
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

    def _is_disturbed(self, ending: Ending, since: float, now: float) -> bool:
        """Whether the result must wait, or is void, because somebody wrote to the original meanwhile."""
        job = ending.job
        assert isinstance(ending.outcome, Result)
        state = recheck(self._store.layout.job_directory(job.id), job, ending.outcome.sha256)
        if state is State.CHANGED:
            name = self._store.give_back(job)
            del self._endings[job.id]
            self._emit(events.UploadGivenBack(job, name))
            return True
        if state is State.WRITER and now - since < WRITER_SECONDS:
            if now == since:
                progress = Progress(Phase.PUBLISHING, ending.outcome.duration_seconds, ending.outcome.duration_seconds)
                self._shown.show(job, progress, reason="somebody still has the recording open for writing")
            ending.next_at = now + WRITER_LOOK_SECONDS
            return True
        ending.unchecked_since = None
        return False
