"""The transitions of claimed jobs, in the registry and on disk; `endings` has the last one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from whisperd.core import events
from whisperd.core.display import printable
from whisperd.core.job import Phase, Progress
from whisperd.core.slices import Slice
from whisperd.daemon.devices import Blame
from whisperd.daemon.duplicates import Duplicates
from whisperd.daemon.endings import Endings, Retry, decide
from whisperd.daemon.loop import Part
from whisperd.daemon.registry import WAITING, JobAttempt, JobState, Registry
from whisperd.daemon.status_files import StatusWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisperd.core.job import Failure, Job, Result
    from whisperd.daemon.registry import Entry
    from whisperd.protocol import Heartbeat
    from whisperd.settings.config import Config
    from whisperd.spool.recover import Recovery
    from whisperd.spool.store import Store

UNPAID_MAX = 12  # ends of fresh workers that may be the fault of a device; the next one is the job's

_log = logging.getLogger(__name__)


class Jobs(Part):
    """All claimed jobs; every transition of a job is a method here.

    Args:
        trouble: says why no worker can be used; None while one can.

    Attributes:
        registry: what there is; it answers all questions.
    """

    def __init__(
        self,
        store: Store,
        emitter: events.Emitter,
        *,
        max_attempts: int,
        retry_seconds: float,
        trouble: Callable[[], Failure | None] = lambda: None,
    ) -> None:
        self._store = store
        self._emit = emitter.emit
        self._max_attempts = max_attempts
        self._retry_seconds = retry_seconds
        self._trouble = trouble
        self.registry = Registry()
        self._duplicates = Duplicates(store.layout)
        self._status_files = StatusWriter(store, self.registry)
        self._endings = Endings(store, emitter, self.registry, self._duplicates, self._status_files)

    def __len__(self) -> int:
        """Return how many jobs have not ended."""
        return len(self.registry)

    @property
    def waiting(self) -> int:
        """How many jobs wait for a worker, or to be compared with earlier ones."""
        return self.registry.count(*WAITING)

    @property
    def completed(self) -> int:
        """How many jobs were completed since the start."""
        return self._endings.completed

    @property
    def failed(self) -> int:
        """How many jobs have failed since the start."""
        return self._endings.failed

    def configure(self, config: Config) -> None:
        """Use these limits from now on."""
        self._max_attempts, self._retry_seconds = config.pool.max_attempts, config.pool.retry_seconds
        self._duplicates.configure(skip=config.intake.duplicates == "skip")

    def restore(self, recovery: Recovery, now: float) -> None:
        """Take over what an earlier daemon left."""
        self._status_files.start(now)
        for job, name in recovery.returned:
            self._emit(events.UploadGivenBack(job, name))
        for job, result in recovery.to_finish:
            self._endings.begin(job, result, now)
        for job, failure in recovery.to_fail:
            self._endings.begin(job, failure, now)
        for job in recovery.queued:
            self._emit(events.JobRecovered(job))
            if job.attempts:
                self.admit(job)
            else:
                self.receive(job)

    def receive(self, job: Job) -> None:
        """Add a new job: to the queue, or first to be compared with earlier ones."""
        if not self._duplicates.is_candidate(job):
            self.admit(job)
        else:
            self.registry.put(job, JobState.COMPARING)
            self._status_files.show(job, Progress(), sync=True, reason="being compared with earlier recordings")

    def admit(self, job: Job) -> None:
        """Put a claimed job into the queue."""
        self._status_files.show_queued(self.registry.put(job, JobState.QUEUED))

    def reject(self, job: Job, failure: Failure, now: float) -> None:
        """Fail a job that no worker can do, because of its options or because its model cannot be loaded."""
        self._endings.begin(job, failure, now)

    def cancel(self, job: Job, failure: Failure, now: float) -> bool:
        """Cancel a job; False if a worker has it and must give it back first."""
        entry = self.registry.get(job.id)
        if entry is None or entry.attempt is None:
            self._endings.begin(job, failure, now)
            return True
        entry.attempt.cancelled = failure
        self._status_files.show(job, entry.attempt.progress, reason=entry.attempt.reason)
        return False

    def start(self, job: Job, worker: int, now: float) -> Job:
        """Count the attempt on disk, before a worker gets the job.

        Raises:
            OSError: it cannot be counted, so it must not start.
        """
        started = self._store.start(job)
        entry = self.registry.put(started, JobState.RUNNING)
        is_alone = job.suspect and not entry.must_be_alone
        entry.attempt = JobAttempt(Progress(Phase.DECODING), is_alone)
        entry.last_status.at, entry.last_status.progress = now, None
        self._emit(events.JobStarted(started, worker))
        self._status_files.show(started, Progress(Phase.DECODING))
        return started

    def forget_gone(self, job: Job) -> bool:
        """Forget a waiting job if its files were removed; returns whether they were."""
        return self._endings.forget_gone(job)

    def heard(self, message: Heartbeat, now: float) -> None:
        """Record the progress that a worker reports."""
        entry = self.registry.get(message.job_id)
        if entry is None or (attempt := entry.attempt) is None:
            return  # it was released meanwhile
        if message.phase is Phase.TRANSCRIBING and attempt.transcribing_since is None:
            attempt.transcribing_since = now
        # a fallback must not take progress back
        done = max(message.processed_seconds, attempt.progress.processed_seconds)
        duration = message.duration_seconds or attempt.progress.duration_seconds
        speed = eta = None
        if attempt.transcribing_since is not None and done > 0 and now > attempt.transcribing_since:
            speed = round(done / (now - attempt.transcribing_since), 2)
            eta = (duration - done) / speed if duration is not None and speed else None
        attempt.progress = Progress(message.phase, done, duration, speed, eta)

    def finished(self, job_id: str, result: Result, now: float) -> None:
        """Process a result; it counts only if the original has not changed since the worker read it."""
        if (entry := self._attempt_over(job_id, now)) is not None:
            self._endings.begin(entry.job, result, now, is_unchecked=True)

    def interrupted(self, job_id: str, failure: Failure, blame: Blame, now: float, device: str = "") -> None:
        """Process the end of a worker with this job: the attempt fails if the job is guilty, otherwise it is tried again at once.

        A suspect is alone in its worker next time. If that ends too, the job gets a fresh worker, until it ends: an attempt is
        lost there, or none. Where the device may be the reason, that worker is on another one if there is one; but a job that
        ends worker after worker pays in the end.
        """
        entry, attempt = self.registry.attempt(job_id)
        if blame is Blame.DEVICE:
            entry.failed_on.append(device)
            if len(entry.failed_on) > UNPAID_MAX:
                blame = Blame.GUILTY
        if blame is not Blame.NONE:
            was_alone = entry.must_be_alone or attempt.is_alone
            entry.must_be_alone, entry.needs_fresh_worker = True, blame is not Blame.SUSPECT or was_alone
        if blame is Blame.GUILTY:
            self.attempt_failed(job_id, failure, now)
        elif self._attempt_over(job_id, now) is not None:
            job = entry.job.after(failure, counted=False)
            job = self._recorded(job.given_back() if blame is Blame.NONE else job.suspected())
            self._emit(events.JobRetried(job, failure, 0.0, counted=False))
            self.admit(job)

    def attempt_failed(self, job_id: str, failure: Failure, now: float) -> None:
        """Process a failed attempt: the job is tried again or fails."""
        if (entry := self._attempt_over(job_id, now)) is None:
            return
        job = entry.job
        verdict = decide(
            job,
            failure,
            max_attempts=self._max_attempts,
            retry_seconds=self._retry_seconds,
            interruptions=entry.interruptions,
        )
        if not isinstance(verdict, Retry):
            self._endings.begin(job, verdict.failure, now)
            return
        job = job.after(failure, counted=verdict.counted)
        if not verdict.counted:
            entry.interruptions += 1
            job = job.suspected() if entry.must_be_alone else job.given_back()
        elif not entry.must_be_alone:  # otherwise it stays a suspect, as `start` has recorded
            job = job.failed_once()
        job = self._recorded(job)
        self.registry.put(job, JobState.DELAYED).retry_at = now + verdict.delay_seconds
        self._emit(events.JobRetried(job, failure, verdict.delay_seconds, verdict.counted))
        self._status_files.show(job, Progress(), reason=f"attempt failed, {failure.message}; it is tried again")

    def released(self, job_id: str, now: float) -> None:
        """Process a job that a worker gave back; the next daemon starts it again."""
        if (entry := self._attempt_over(job_id, now)) is not None:
            job = self._recorded(entry.job.given_back())
            self.registry.remove(entry)
            self._emit(events.JobReleased(job))
            self._status_files.show(job, Progress(), sync=True)

    @property
    def is_comparing(self) -> bool:
        """Whether an original is being compared to decide if a result counts."""
        return any(ending.check is not None for _, ending in self.registry.endings())

    def close(self) -> None:
        """Release the jobs whose result does not count yet; the next daemon starts them again without counting an attempt."""
        for entry, ending in self.registry.endings():
            if ending.is_unchecked:
                self._recorded(entry.job.given_back())

    def tick(self, now: float) -> float:
        """Queue jobs whose pause is over, and write outcomes and status files; returns the time of the next call."""
        self._admit_due(now)
        self._status_files.explain(self._trouble())
        times = [self._endings.tick(now), self._status_files.tick(now)]
        times += [entry.retry_at for entry in self.registry.of(JobState.DELAYED)]
        if self._duplicates.is_reading or self.registry.count(JobState.COMPARING):
            times.append(now)
        return min(times)

    def summary(self) -> str:
        """Summarise all jobs in one line: `2 running (interview.mp3 43%), 14 queued, 130 done, 1 failed`."""
        return f"{self.registry.summary()}, {self.completed} done, {self.failed} failed"

    def _admit_due(self, now: float) -> None:
        """Queue jobs that were compared or whose pause is over, for a slice of time."""
        share = Slice()
        self._duplicates.read_on(share)
        for entry in self.registry.of(JobState.COMPARING):
            if share.is_used_up() or (compared := self._duplicates.compare(entry.job, share)) is None:
                break
            job, result = compared
            if result is None:
                self.admit(job)
            else:
                self._endings.begin(job, result, now, is_unchecked=True)
        due = [entry for entry in self.registry.of(JobState.DELAYED) if entry.retry_at <= now]
        for entry in sorted(due, key=lambda entry: entry.retry_at):
            self.admit(entry.job)
            if share.is_used_up():
                return

    def _attempt_over(self, job_id: str, now: float) -> Entry | None:
        """End the attempt of a job; None if the job was cancelled and ends with it."""
        entry, attempt = self.registry.attempt(job_id)
        entry.attempt = None
        if attempt.cancelled is None:
            return entry
        self._endings.begin(entry.job, attempt.cancelled, now)
        return None

    def _recorded(self, job: Job) -> Job:
        """Record the outcome of an attempt on disk; if that fails, it is only kept in memory."""
        try:
            return self._store.record(job)
        except OSError as error:
            _log.warning(
                "%s: its attempts cannot be written down: %s",
                printable(job.name),
                error.strerror,
                extra={"job": job.id},
            )
            return job
