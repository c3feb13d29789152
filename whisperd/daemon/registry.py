"""The registry of claimed jobs: one entry for each, from its claim to its end.

What runs, what is next and what waits is derived from the entries; a question changes nothing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from whisperd.core import events
from whisperd.core.display import printable
from whisperd.core.fair import FairQueue, top_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.core.job import Failure, Job, Progress, Result
    from whisperd.intake.complete import OriginalState

LOOK_AHEAD = 1000  # waiting jobs among which one is looked for whose model is loaded
LISTED = 50  # jobs of a kind that a snapshot names; the rest is counted


class JobState(Enum):
    """The state of a claimed job."""

    COMPARING = auto()  # with earlier recordings
    QUEUED = auto()  # until a worker can take it
    DELAYED = auto()  # until it is tried again
    RUNNING = auto()  # a worker has it
    ENDING = auto()  # its outcome is known, and not written down yet


WAITING = (JobState.COMPARING, JobState.QUEUED, JobState.DELAYED)


@dataclass(slots=True)
class JobAttempt:
    """The current attempt of a job that a worker has."""

    progress: Progress
    is_alone: bool  # nothing else may run beside it
    transcribing_since: float | None = None
    cancelled: Failure | None = None  # its end, whatever the worker says

    @property
    def reason(self) -> str | None:
        """The reason why the job is about to end."""
        return self.cancelled.message if self.cancelled is not None else None


@dataclass(slots=True)
class Ending:
    """The outcome of a job, which may not be written to disk yet."""

    outcome: Result | Failure
    next_at: float
    pause: float = 0.0
    is_unchecked: bool = False  # the original is still to be compared with what the worker read
    check: Iterator[OriginalState | None] | None = None  # that comparison, once it has begun
    writer_since: float | None = None  # when it first showed somebody who has the original open for writing


@dataclass(slots=True)
class LastStatus:
    """The last content of a job's status file, and its time."""

    position: int | None = None
    progress: Progress | None = None
    at: float = float("-inf")


@dataclass(slots=True)
class Entry:
    """One claimed job with its state and everything known about it."""

    job: Job
    state: JobState
    last_status: LastStatus
    retry_at: float = 0.0  # delayed: when it is tried again
    overtaken_since: float | None = None  # queued: since when others go before it, because no worker has its model
    interruptions: int = 0  # ends of attempts that were nobody's fault
    must_be_alone: bool = False  # its worker ended: beside it in a worker there must be no other job ...
    needs_fresh_worker: bool = False  # ... and this worker must not have had another one, if it was alone then
    failed_on: list[str] = field(default_factory=list)  # devices whose fresh workers ended with it and nothing else
    attempt: JobAttempt | None = None
    ending: Ending | None = None

    @property
    def is_suspect_of_crash(self) -> bool:
        """Whether the job was running when an earlier daemon died, for which any running job may be the reason."""
        return self.job.suspect and not self.must_be_alone


class Registry:
    """All entries; only `put` and `remove` change it."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._ids: dict[JobState, dict[str, None]] = {state: {} for state in JobState}  # the same, sorted by state
        self._line: FairQueue[str] = FairQueue()  # the order of those that are queued: folders take turns

    def put(self, job: Job, state: JobState) -> Entry:
        """Set a job and its state, and keep the rest of its entry."""
        entry = self._entries.get(job.id)
        if entry is None:
            entry = self._entries[job.id] = Entry(job, state, LastStatus())
        else:
            self._leave(entry, turn_is_used=state is JobState.RUNNING)
        entry.job, entry.state = job, state
        self._ids[state][job.id] = None
        if state is JobState.QUEUED:
            self._line.push(job.id, top_folder(job.name), job.id)
        return entry

    def remove(self, entry: Entry) -> None:
        """Forget a job."""
        self._leave(entry)
        del self._entries[entry.job.id]

    def _leave(self, entry: Entry, *, turn_is_used: bool = False) -> None:
        del self._ids[entry.state][entry.job.id]
        if entry.state is JobState.QUEUED:
            if turn_is_used:
                self._line.take(entry.job.id)  # its folder goes to the end of the line
            else:
                self._line.remove(entry.job.id)
            entry.overtaken_since = entry.last_status.position = None

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, job_id: str) -> Entry | None:
        """Return the entry of a job; None if it is not known."""
        return self._entries.get(job_id)

    def of(self, state: JobState) -> Iterator[Entry]:
        """Return the entries in a state, the oldest first."""
        return (self._entries[job_id] for job_id in tuple(self._ids[state]) if job_id in self._ids[state])

    def count(self, *states: JobState) -> int:
        """Count the jobs in these states."""
        return sum(len(self._ids[state]) for state in states)

    def queue(self) -> Iterator[Entry]:
        """Return the queued jobs in the order in which they run."""
        return (self._entries[job_id] for job_id in self._line if job_id in self._ids[JobState.QUEUED])

    def attempt(self, job_id: str) -> tuple[Entry, JobAttempt]:
        """Return the entry of a job that a worker has, and its attempt."""
        entry = self._entries[job_id]
        assert entry.attempt is not None
        return entry, entry.attempt

    def attempts(self) -> Iterator[tuple[Entry, JobAttempt]]:
        """Return the jobs that workers have."""
        return ((entry, entry.attempt) for entry in self.of(JobState.RUNNING) if entry.attempt is not None)

    def endings(self) -> Iterator[tuple[Entry, Ending]]:
        """Return the jobs whose outcome is known."""
        return ((entry, entry.ending) for entry in self.of(JobState.ENDING) if entry.ending is not None)

    def candidates(self) -> Iterator[Entry]:
        """Return the jobs that may run now, in order; one whose model is loaded may overtake others.

        One that was running when the daemon died runs alone, so that only the guilty one is blamed; for one whose worker
        ended it is enough to be alone in a worker (`Entry.must_be_alone`).
        """
        if any(attempt.is_alone for _, attempt in self.attempts()):
            return
        head = self._line.peek()  # mostly there is no need of the others, which it takes long to list
        others = (job_id for job_id in itertools.islice(self._line, LOOK_AHEAD) if job_id != head)
        for job_id in itertools.chain([] if head is None else [head], others):
            entry = self._entries.get(job_id)
            if entry is None or entry.state is not JobState.QUEUED:
                continue  # it left the queue since we began
            if entry.is_suspect_of_crash and self.count(JobState.RUNNING):
                return
            yield entry

    def called(self, name: str) -> list[Job]:
        """Return the jobs that can be cancelled and have this name, or whose files have it."""
        waiting = [entry.job for state in WAITING for entry in self.of(state)]
        running = [entry.job for entry, attempt in self.attempts() if attempt.cancelled is None]
        return [job for job in (*waiting, *running) if name in {job.name, job.place}]

    def summary(self) -> str:
        """Summarise running and waiting jobs: `2 running (interview.mp3 43%), 14 queued`."""
        named = ", ".join(
            f"{printable(entry.job.name)} {attempt.progress.percent:.0f}%" for entry, attempt in self.attempts()
        )
        running = f"{self.count(JobState.RUNNING)} running" + (f" ({named})" if named else "")
        return f"{running}, {self.count(*WAITING)} queued"

    def snapshot(self, *, arriving: int) -> events.JobsNow:
        """Return the jobs that have not ended, and the number of waiting uploads; cheap enough for every turn of the loop."""
        running = self.count(JobState.RUNNING)
        return events.JobsNow(
            tuple((entry.job, attempt.progress) for entry, attempt in itertools.islice(self.attempts(), LISTED)),
            tuple(entry.job for entry in itertools.islice(self.queue(), LISTED)),
            running,
            len(self) - running + arriving,
        )
