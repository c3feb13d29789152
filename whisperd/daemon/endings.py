"""The ends of jobs: decides whether a failed attempt was the last one, and writes each outcome until it is on disk.

An original that was touched during the run is read again before its result counts, in slices of the loop's time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd.core import events
from whisperd.core.display import printable
from whisperd.core.job import Phase, Progress, Result
from whisperd.core.slices import Slice
from whisperd.daemon.registry import Ending, JobState
from whisperd.intake.complete import OriginalState, recheck

if TYPE_CHECKING:
    from whisperd.core.job import Failure, Job
    from whisperd.daemon.duplicates import Duplicates
    from whisperd.daemon.registry import Entry, Registry
    from whisperd.daemon.status_files import StatusWriter
    from whisperd.spool.store import Store

RETRY_SECONDS_MAX = 3600.0
TRANSIENT_CODES = frozenset({"spool_full", "no_resources"})  # nobody's fault but the machine's: costs no attempt
SLICE_SECONDS = 0.02  # of one turn
WRITER_SECONDS = 60.0  # a result waits this long if somebody still has the original open for writing ...
WRITER_LOOK_SECONDS = 0.5  # ... and this is how often it is seen to
PAUSE_SECONDS = (5.0, 60.0)  # first and longest pause before an end that could not be written is tried again


@dataclass(frozen=True, slots=True)
class Retry:
    """The decision to try a job again after a pause; `counted` says whether the attempt counts."""

    delay_seconds: float
    counted: bool


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The decision that a job fails, with the reason."""

    failure: Failure


def decide(
    job: Job, failure: Failure, *, max_attempts: int, retry_seconds: float, interruptions: int = 0
) -> Retry | GiveUp:
    """Decide what happens to a job after a failed attempt, which `job.attempts` already counts; no other function does.

    `interruptions` are its earlier ends that were nobody's fault: the pause doubles for those too, or a weekend with a
    full disk would be spent decoding the same recordings.
    """
    if failure.code in TRANSIENT_CODES:
        return Retry(min(RETRY_SECONDS_MAX, max(1.0, retry_seconds) * 2**interruptions), counted=False)
    if not failure.retryable or job.attempts >= max_attempts:
        return GiveUp(failure)
    return Retry(min(RETRY_SECONDS_MAX, retry_seconds * 2 ** (job.attempts - 1)), counted=True)


class Endings:
    """All jobs whose outcome is known and whose original is not in done/ or failed/ yet."""

    def __init__(
        self,
        store: Store,
        emitter: events.Emitter,
        registry: Registry,
        duplicates: Duplicates,
        status_files: StatusWriter,
    ) -> None:
        self._store = store
        self._emit = emitter.emit
        self._registry = registry
        self._duplicates = duplicates
        self._status_files = status_files
        self.completed = 0
        self.failed = 0

    def tick(self, now: float) -> float:
        """Write outcomes that could not be written before, and continue to compare originals; returns the time of the next call."""
        share = Slice(SLICE_SECONDS)
        due = [(entry, ending) for entry, ending in self._registry.endings() if ending.next_at <= now]
        for entry, ending in sorted(due, key=lambda each: (each[1].check is not None, each[1].next_at)):
            self._write(entry, ending, now, share)
            if share.is_used_up():
                break
        return min((ending.next_at for _, ending in self._registry.endings()), default=float("inf"))

    def begin(self, job: Job, outcome: Result | Failure, now: float, *, is_unchecked: bool = False) -> None:
        """Write an outcome, at once if possible; with `is_unchecked` only after comparing the original with what was read."""
        entry = self._registry.put(job, JobState.ENDING)
        entry.ending = Ending(outcome, now, is_unchecked=is_unchecked)
        self._write(entry, entry.ending, now, Slice(0.0))

    def forget_gone(self, job: Job) -> bool:
        """Forget a job if its files were removed; returns whether they were."""
        try:
            if not self._store.is_gone(job):
                return False
        except OSError:
            return False
        self._store.forget(job)
        if (entry := self._registry.get(job.id)) is not None:
            self._registry.remove(entry)
        self._emit(events.JobGone(job))
        return True

    def _write(self, entry: Entry, ending: Ending, now: float, share: Slice) -> None:
        try:
            if ending.is_unchecked and self._must_wait(entry, ending, now, share):
                return
            if isinstance(ending.outcome, Result):
                job = self._store.finish(entry.job, ending.outcome)
            else:
                job = self._store.fail(entry.job, ending.outcome)
        except OSError as error:
            ending.check = None
            if isinstance(error, FileNotFoundError) and self.forget_gone(entry.job):
                return
            ending.pause = min(PAUSE_SECONDS[1], ending.pause * 2) if ending.pause else PAUSE_SECONDS[0]
            ending.next_at = now + ending.pause
            where = f" ({printable(str(error.filename))})" if error.filename else ""
            self._emit(events.TransitionDelayed(entry.job, f"{error.strerror}{where}", ending.pause))
            return
        self._registry.remove(entry)
        if isinstance(ending.outcome, Result):
            self.completed += 1
            self._duplicates.remember(job, ending.outcome)
            self._emit(events.JobFinished(job, ending.outcome))
        else:
            self.failed += 1
            self._emit(events.JobFailed(job, ending.outcome))

    def _must_wait(self, entry: Entry, ending: Ending, now: float, share: Slice) -> bool:
        """Whether a result must wait, or is void, because the original was changed during the attempt."""
        job = entry.job
        state = self._compare_on(entry, ending, share)
        if state is None:
            ending.next_at = now
            return True
        if state is OriginalState.CHANGED:
            name = self._store.release(job)
            self._registry.remove(entry)
            self._emit(events.UploadGivenBack(job, name))
            return True
        if state is OriginalState.WRITER and (
            ending.writer_since is None or now - ending.writer_since < WRITER_SECONDS
        ):
            if ending.writer_since is None:
                ending.writer_since = now
                self._show(job, ending.outcome, "a program still has the recording open for writing")
            ending.next_at = now + WRITER_LOOK_SECONDS
            return True
        ending.is_unchecked = False
        return False

    def _compare_on(self, entry: Entry, ending: Ending, share: Slice) -> OriginalState | None:
        """Read at least one more block of an original; None if it was not the last one."""
        assert isinstance(ending.outcome, Result)
        if ending.check is None:
            ending.check = recheck(self._store.layout.job_directory(entry.job.id), entry.job, ending.outcome.sha256)
            if (state := next(ending.check)) is None:
                self._show(
                    entry.job,
                    ending.outcome,
                    "the recording was touched while it was transcribed; its content is compared",
                )
        else:
            state = next(ending.check)
        while state is None and not share.is_used_up():
            state = next(ending.check)
        if state is not None:
            ending.check = None
        return state

    def _show(self, job: Job, outcome: Result | Failure, reason: str) -> None:
        assert isinstance(outcome, Result)
        seconds = outcome.duration_seconds
        self._status_files.show(job, Progress(Phase.PUBLISHING, seconds, seconds), reason=reason)
