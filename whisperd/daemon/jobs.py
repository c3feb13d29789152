"""The claimed jobs: who waits, who runs, and when a job is tried again; how one ends is in `endings`."""

from __future__ import annotations

import heapq
import itertools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd.core import events
from whisperd.core.display import printable
from whisperd.core.fair import FairQueue, top_folder
from whisperd.core.job import Failure, Job, Phase, Progress, Result
from whisperd.core.slices import Slice, advance
from whisperd.daemon.duplicates import Duplicates
from whisperd.daemon.endings import Endings
from whisperd.daemon.pool import Blame
from whisperd.daemon.retry import Retry, decide
from whisperd.daemon.shown import Shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.protocol import Heartbeat
    from whisperd.spool.recover import Recovery
    from whisperd.spool.store import Store

SHOW_SECONDS = 1.0  # a running job's sidecar is written so often
POSITIONS_SECONDS = 5.0  # the waiting ones' so often
REFRESH_SECONDS = 86_400.0  # all of them so often, or systemd-tmpfiles takes a waiting job's sidecar for an old one
OVERTAKEN_SECONDS = 60.0  # so long others go before a job for whose model a worker would have to be replaced
LOOK_AHEAD = 1000  # waiting jobs among which one is looked for whose model is loaded

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Running:
    """A job in a worker's hands."""

    job: Job
    progress: Progress
    alone: bool  # nothing else may run beside it
    transcribing_since: float | None = None
    shown_at: float = float("-inf")
    shown: Progress | None = None
    cancelled: Failure | None = None  # its end, whatever its worker says

    @property
    def reason(self) -> str | None:
        """Why it goes on no more."""
        return self.cancelled.message if self.cancelled is not None else None


class Jobs:
    """All jobs in `.work`; every transition goes through here to the store."""

    def __init__(self, store: Store, emitter: events.Emitter, *, max_attempts: int, retry_seconds: float) -> None:
        self._store = store
        self._emit = emitter.emit
        self.max_attempts = max_attempts
        self.retry_seconds = retry_seconds
        self.duplicates = Duplicates(store.layout)
        self.queue: FairQueue[Job] = FairQueue()
        self.running: dict[str, Running] = {}
        self._delayed: list[tuple[float, int, Job]] = []
        self._shown = Shown(store)
        self._endings = Endings(store, emitter, self.duplicates, self._shown)
        self._count = itertools.count()
        self._interruptions: dict[str, int] = {}
        self._suspects: dict[str, bool] = {}  # whose worker ended; whether only a fresh worker will do for them now
        self._positions: dict[str, int] = {}
        self._overtaken: dict[str, float] = {}  # since when
        self._positions_at = float("-inf")
        self._showing: Iterator[None] | None = None  # a pass over the positions that has begun
        self._refresh_at = float("inf")
        self._obstacle: str | None = None  # why nothing in the queue can start

    def __len__(self) -> int:
        """How many jobs there are that have not ended."""
        return self.waiting + len(self.running) + len(self._endings)

    @property
    def waiting(self) -> int:
        """How many jobs wait for a worker, or to be compared with earlier ones."""
        return len(self.queue) + len(self._delayed) + len(self.duplicates)

    @property
    def completed(self) -> int:
        """How many have been completed since the start."""
        return self._endings.completed

    @property
    def failed(self) -> int:
        """How many have failed since the start."""
        return self._endings.failed

    def restore(self, recovery: Recovery, now: float) -> None:
        """Take up what an earlier daemon left."""
        self._refresh_at = now + REFRESH_SECONDS
        for job, name in recovery.returned:
            self._emit(events.UploadGivenBack(job, name))
        for job, result in recovery.to_finish:
            self._end(job, result, now)
        for job, failure in recovery.to_fail:
            self._end(job, failure, now)
        for job in recovery.queued:
            self._emit(events.JobRecovered(job))
            if job.attempts:
                self.admit(job)
            else:
                self.receive(job)

    def receive(self, job: Job) -> None:
        """Take a job that no worker has had yet: into the queue, unless its content may have been transcribed before."""
        if not self.duplicates.hold(job):
            self.admit(job)
        else:
            self._shown.show(job, Progress(), sync=True, reason="being compared with earlier recordings")

    def admit(self, job: Job) -> None:
        """Put a claimed job into the queue."""
        self.queue.push(job.id, top_folder(job.name), job)
        self._positions[job.id] = len(self.queue)
        self._shown.show(job, Progress(queue_position=len(self.queue)), sync=True, reason=self._obstacle)

    def explain(self, trouble: Failure | None) -> None:
        """Say in the status files of the queue why no worker can be used, or that one can again."""
        obstacle = None if trouble is None else f"no worker can be used, {trouble.message}; it is tried again"
        if obstacle != self._obstacle:
            self._obstacle = obstacle
            self._showing = None
            self._positions.clear()
            self._positions_at = float("-inf")

    def reject(self, job: Job, failure: Failure, now: float) -> None:
        """Fail a job that no worker can do: it was claimed in that knowledge, or waits for a model that does not load."""
        self._leave_queue(job)
        self._end(job, failure, now)

    def called(self, name: str) -> list[Job]:
        """The jobs that can be cancelled and are of this name, or write under it."""
        waiting = (*self.queue, *(job for _, _, job in self._delayed), *self.duplicates)
        running = (each.job for each in self.running.values() if each.cancelled is None)
        return [job for job in (*waiting, *running) if name in {job.name, job.place}]

    def cancel(self, job: Job, failure: Failure, now: float) -> bool:
        """Bring a job to an end; False while a worker has it, which must be asked for it."""
        if running := self.running.get(job.id):
            running.cancelled = failure
            self._shown.show(job, running.progress, reason=running.reason)
            return False
        self._leave_queue(job)
        self._delayed = [entry for entry in self._delayed if entry[2].id != job.id]
        heapq.heapify(self._delayed)
        self.duplicates.drop(job.id)
        self._end(job, failure, now)
        return True

    def candidates(self) -> Iterator[Job]:
        """The jobs that may run now, in the order of their turns; one whose model is loaded may overtake others.

        One that was running when the daemon died runs alone, so that only the guilty one is blamed; for one whose worker
        ended it is enough to be alone in a worker (`must_be_alone`).
        """
        if any(running.alone for running in self.running.values()):
            return
        head = self.queue.peek()  # mostly there is no need of the others, which it takes long to list
        others = (job for job in itertools.islice(self.queue, LOOK_AHEAD) if job is not head)
        for job in itertools.chain([] if head is None else [head], others):
            if self._is_suspect_of_crash(job) and self.running:
                return
            yield job

    def _is_suspect_of_crash(self, job: Job) -> bool:
        return job.suspect and job.id not in self._suspects

    def must_be_alone(self, job: Job) -> bool:
        """Whether a worker must have no other job beside this one, because its earlier worker ended."""
        return job.id in self._suspects

    def needs_fresh_worker(self, job: Job) -> bool:
        """Whether its worker must not have had another job before: an engine has failed with this one alone."""
        return self._suspects.get(job.id, False)

    def is_overdue(self, job: Job, now: float) -> bool:
        """Whether others have overtaken a job for long enough: it waits for a model that no worker has."""
        self._overtaken.setdefault(job.id, now)
        return now - self._overtaken[job.id] >= OVERTAKEN_SECONDS

    def start(self, job: Job, worker: int, now: float) -> Job:
        """Count the attempt on disk; only then may a worker get the job.

        Raises:
            OSError: it cannot be counted, so it must not start.
        """
        started = self._store.start(job)
        self.queue.take(job.id)  # its folder goes to the end of the line
        self._leave_queue(job)
        self.running[job.id] = Running(started, Progress(Phase.DECODING), self._is_suspect_of_crash(job), shown_at=now)
        self._emit(events.JobStarted(started, worker))
        self._shown.show(started, Progress(Phase.DECODING))
        return started

    def forget_gone(self, job: Job) -> bool:
        """Let go of a job that waits, if somebody has removed its files; whether that is so."""
        if not self._endings.forget_gone(job):
            return False
        self._leave_queue(job)
        self._interruptions.pop(job.id, None)
        self._suspects.pop(job.id, None)
        return True

    def _leave_queue(self, job: Job) -> None:
        self.queue.remove(job.id)
        self._overtaken.pop(job.id, None)
        self._positions.pop(job.id, None)

    def heard(self, message: Heartbeat, now: float) -> None:
        """A worker says how far it is."""
        running = self.running[message.job_id]
        if message.phase is Phase.TRANSCRIBING and running.transcribing_since is None:
            running.transcribing_since = now
        # a fallback must not take progress back
        done = max(message.processed_seconds, running.progress.processed_seconds)
        duration = message.duration_seconds or running.progress.duration_seconds
        speed = eta = None
        if running.transcribing_since is not None and done > 0 and now > running.transcribing_since:
            speed = round(done / (now - running.transcribing_since), 2)
            eta = (duration - done) / speed if duration is not None and speed else None
        running.progress = Progress(message.phase, done, duration, speed, eta)

    def finished(self, job_id: str, result: Result, now: float) -> None:
        """A worker has rendered everything; it counts if the original is still what the worker read."""
        if not self._was_cancelled(job_id, now):
            self._end(self.running.pop(job_id).job, result, now, is_unchecked=True)

    def interrupted(self, job_id: str, failure: Failure, blame: Blame, now: float) -> None:
        """A worker ended with this job: an attempt failed if the job is guilty, otherwise it is tried again at once.

        A suspect is alone in its worker next time. If that ends too, the job gets a fresh worker, until it ends: an attempt is
        lost there, or none.
        """
        if blame is not Blame.NONE:
            was_alone = job_id in self._suspects or self.running[job_id].alone
            self._suspects[job_id] = blame is Blame.GUILTY or was_alone
        if blame is Blame.GUILTY:
            self.attempt_failed(job_id, failure, now)
        elif not self._was_cancelled(job_id, now):
            job = self.running.pop(job_id).job
            job = self._noted(job.suspected() if blame is Blame.SUSPECT else job.given_back())
            self._emit(events.JobRetried(job, failure, 0.0, counted=False))
            self.admit(job)

    def attempt_failed(self, job_id: str, failure: Failure, now: float) -> None:
        """An attempt failed: again, or the end."""
        if self._was_cancelled(job_id, now):
            return
        job = self.running.pop(job_id).job
        verdict = decide(
            job,
            failure,
            max_attempts=self.max_attempts,
            retry_seconds=self.retry_seconds,
            interruptions=self._interruptions.get(job_id, 0),
        )
        if isinstance(verdict, Retry) and not verdict.counted:
            self._interruptions[job_id] = self._interruptions.get(job_id, 0) + 1
        if not isinstance(verdict, Retry):
            self._end(job, verdict.failure, now)
            return
        if not verdict.counted:
            job = self._noted(job.suspected() if self.must_be_alone(job) else job.given_back())
        elif not self.must_be_alone(job):  # otherwise it stays a suspect, as `start` has noted
            job = self._noted(job.failed_once())
        heapq.heappush(self._delayed, (now + verdict.delay_seconds, next(self._count), job))
        self._emit(events.JobRetried(job, failure, verdict.delay_seconds, verdict.counted))
        self._shown.show(job, Progress(), reason=f"attempt failed, {failure.message}; it is tried again")

    def released(self, job_id: str, now: float) -> None:
        """A worker gave the job back, or was ended so that it did."""
        if self._was_cancelled(job_id, now):
            return
        job = self._noted(self.running.pop(job_id).job.given_back())
        self._emit(events.JobReleased(job))
        self._shown.show(job, Progress(), sync=True)

    @property
    def is_comparing(self) -> bool:
        """Whether an original is being read to see if a result counts."""
        return self._endings.is_comparing

    def close(self) -> None:
        """Give back the jobs whose result does not count yet: the next daemon starts them again, at no attempt's cost."""
        for job in self._endings.unchecked():
            self._noted(job.given_back())

    def tick(self, now: float) -> None:
        """Queue what has waited long enough, write down ends that could not be written, bring sidecars up to date."""
        self._admit_due(now)
        self._endings.tick(now)
        share = Slice()
        for running in sorted(self.running.values(), key=lambda running: running.shown_at):
            if now - running.shown_at >= SHOW_SECONDS and running.progress != running.shown:
                running.shown_at, running.shown = now, running.progress
                self._shown.show(running.job, running.progress, reason=running.reason)
                if share.is_used_up():
                    break  # who has waited longest is shown first
        if self._showing is None and now - self._positions_at >= POSITIONS_SECONDS:
            self._positions_at = now
            if now >= self._refresh_at:
                self._refresh_at = now + REFRESH_SECONDS
                self._positions.clear()
            self._showing = self._show_positions()
        if self._showing is not None and not advance(self._showing):
            self._showing = None

    def _admit_due(self, now: float) -> None:
        """Queue what has been compared or has waited long enough, as far as a slice goes."""
        share = Slice()
        while not share.is_used_up() and (decided := self.duplicates.tick(share)):
            for job, result in decided:
                if result is None:
                    self.admit(job)
                else:
                    self._end(job, result, now, is_unchecked=True)
        while self._delayed and self._delayed[0][0] <= now:
            self.admit(heapq.heappop(self._delayed)[2])
            if share.is_used_up():
                return

    def next_at(self, now: float) -> float:
        """Return the time when `tick` has something to do again."""
        times = self._endings.times()
        if self.duplicates.is_busy or self._showing is not None:
            times.append(now)
        if self._delayed:
            times.append(self._delayed[0][0])
        if self.running:
            times.append(now + SHOW_SECONDS)
        return min(times, default=now + 3600.0)

    def summary(self) -> str:
        """One line: `2 running (interview.mp3 43%), 14 queued, 130 done, 1 failed`."""
        running = ", ".join(
            f"{printable(each.job.name)} {each.progress.percent:.0f}%" for each in self.running.values()
        )
        shown = f" ({running})" if running else ""
        return f"{len(self.running)} running{shown}, {self.waiting} queued, {self.completed} done, {self.failed} failed"

    def _was_cancelled(self, job_id: str, now: float) -> bool:
        """Whether its worker was to let go of a job, which thereby ends."""
        if (failure := self.running[job_id].cancelled) is None:
            return False
        self._end(self.running.pop(job_id).job, failure, now)
        return True

    def _end(self, job: Job, outcome: Result | Failure, now: float, *, is_unchecked: bool = False) -> None:
        self._interruptions.pop(job.id, None)
        self._suspects.pop(job.id, None)
        self._endings.begin(job, outcome, now, is_unchecked=is_unchecked)

    def _noted(self, job: Job) -> Job:
        """Write down what has become of the attempt; where that fails it is true as long as this daemon lives."""
        try:
            return self._store.record(job)
        except OSError as error:
            _log.warning("%s: its attempts cannot be written down: %s", printable(job.name), error.strerror)
            return job

    def _show_positions(self) -> Iterator[None]:
        """Bring the status files of the queue up to date, one by one; some may leave it meanwhile."""
        for position, job in enumerate(self.queue, start=1):
            if self._positions.get(job.id) != position and job.id in self.queue:
                self._positions[job.id] = position
                self._shown.show(job, Progress(queue_position=position), reason=self._obstacle)
                yield
