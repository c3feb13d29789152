"""What happened, as values, and the emitter that tells whoever listens: logs, metrics, the service manager."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whisperd.core.job import Failure, Job, Result

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""


@dataclass(frozen=True, slots=True)
class JobClaimed(Event):
    """An upload was taken; `waited_seconds` from its first sight, settling included."""

    job: Job
    waited_seconds: float


@dataclass(frozen=True, slots=True)
class JobStarted(Event):
    """A worker got the job."""

    job: Job
    worker: int


@dataclass(frozen=True, slots=True)
class JobFinished(Event):
    """The transcripts are in the outbox and the original is in done/."""

    job: Job
    result: Result


@dataclass(frozen=True, slots=True)
class JobFailed(Event):
    """The original is in failed/ and the sidecar says why."""

    job: Job
    failure: Failure


@dataclass(frozen=True, slots=True)
class JobRetried(Event):
    """An attempt failed; another one follows after a pause."""

    job: Job
    failure: Failure
    delay_seconds: float
    counted: bool


@dataclass(frozen=True, slots=True)
class JobReleased(Event):
    """The job was given back and waits for the next start."""

    job: Job


@dataclass(frozen=True, slots=True)
class JobRecovered(Event):
    """The job was found in `.work` at start."""

    job: Job


@dataclass(frozen=True, slots=True)
class UploadRefused(Event):
    """Something in the inbox is not taken until somebody acts; `is_unread`: it, mostly a folder, cannot be read."""

    name: str
    reason: str
    is_unread: bool = False


@dataclass(frozen=True, slots=True)
class ReadableAgain(Event):
    """A folder or file of the inbox that could not be read can be read again, or is gone."""

    name: str


@dataclass(frozen=True, slots=True)
class UploadExplained(Event):
    """The status file of an upload that is not taken yet, at `place` in the outbox, says why."""

    name: str
    reason: str
    place: str


@dataclass(frozen=True, slots=True)
class ExplanationRemoved(Event):
    """The upload whose status file was at `place` is taken, or gone."""

    place: str


@dataclass(frozen=True, slots=True)
class UploadStalled(Event):
    """Nothing has come of an upload for a long time, and it is not complete."""

    name: str
    reason: str
    quiet_seconds: float


@dataclass(frozen=True, slots=True)
class UploadGivenBack(Event):
    """A recording was changed after it was taken: it lies in the inbox again, under `name`, without a transcript."""

    job: Job
    name: str


@dataclass(frozen=True, slots=True)
class WatchRearmed(Event):
    """The watch over the inbox had ended, or told nothing; there is a new one and the inbox is scanned."""

    reason: str


@dataclass(frozen=True, slots=True)
class PollingStarted(Event):
    """Events do not tell of everything in the inbox: from now on it is read often."""

    reason: str


@dataclass(frozen=True, slots=True)
class ClaimsPaused(Event):
    """Nothing is claimed for now."""

    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class ClaimsResumed(Event):
    """Claiming goes on."""


@dataclass(frozen=True, slots=True)
class TransitionDelayed(Event):
    """A job's end could not be written; it is tried again until it can."""

    job: Job
    message: str
    delay_seconds: float


@dataclass(frozen=True, slots=True)
class JobGone(Event):
    """Somebody has removed a job's files from `.work`; it is forgotten."""

    job: Job


@dataclass(frozen=True, slots=True)
class WorkerReady(Event):
    """A worker has loaded its model."""

    worker: int
    pid: int
    model: str
    device: str
    load_seconds: float


@dataclass(frozen=True, slots=True)
class WorkerEnded(Event):
    """A worker process ended; `expected` when it was told to."""

    worker: int
    pid: int
    how: str
    expected: bool
    restart_seconds: float | None


@dataclass(frozen=True, slots=True)
class WorkerStopped(Event):
    """A step of the ladder that ends a job which does not answer: release, SIGABRT, SIGKILL."""

    worker: int
    pid: int
    rung: str
    reason: str


@dataclass(frozen=True, slots=True)
class NoticeDelivered(Event):
    """Somebody has been told of a job's end; `said` is what the command printed."""

    kind: str
    channel: str
    job_id: str
    name: str
    seconds: float
    said: str


@dataclass(frozen=True, slots=True)
class NoticeDelayed(Event):
    """Somebody could not be told of a job's end; it is tried again."""

    kind: str
    channel: str
    job_id: str
    name: str
    reason: str
    delay_seconds: float


@dataclass(frozen=True, slots=True)
class NoticeDropped(Event):
    """Somebody was not told of a job's end, and will not be."""

    kind: str
    channel: str
    job_id: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class NoticesUnreadable(Event):
    """The folder of notices cannot be read: what an earlier daemon left there waits until it can."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class FilesPruned(Event):
    """The oldest files of a room were removed, to keep it below its size."""

    room: str
    files: int
    freed_bytes: int


@dataclass(frozen=True, slots=True)
class WorkerWorn(Event):
    """A worker holds more memory after a job than it may: it gets no other one, and is replaced."""

    worker: int
    pid: int
    held_bytes: int
    most_bytes: int


@dataclass(frozen=True, slots=True)
class ReloadTried(Event):
    """A new configuration wants another engine: a worker loads it, and until it is ready the old configuration counts."""

    model: str
    device: str


@dataclass(frozen=True, slots=True)
class ConfigApplied(Event):
    """A new configuration is in use."""


@dataclass(frozen=True, slots=True)
class ConfigRefused(Event):
    """A new configuration cannot be used; the old one stays, whole."""

    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class WorkerRetired(Event):
    """A worker is ended because its engine failed; its jobs go back to the queue."""

    worker: int
    pid: int
    failure: Failure
    jobs: int


@dataclass(frozen=True, slots=True)
class WorkersFail(Event):
    """Workers cannot load what their jobs need; they are tried again until they can."""

    failure: Failure
    retry_seconds: float


@dataclass(frozen=True, slots=True)
class LoopTurned(Event):
    """The supervisor's loop has turned once; how long each of its steps took."""

    step_seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class WorkersWork(Event):
    """All workers can be used again."""


Listener = Callable[[Event], None]


class Emitter:
    """Tells every listener, in order; one that raises is logged, and harms neither the others nor what happened."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._logged: set[str] = set()

    def subscribe(self, listener: Listener) -> None:
        """Add a listener; it must be quick."""
        self._listeners.append(listener)

    def emit(self, event: Event) -> None:
        """Tell them."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001  # whatever it is, the job must not pay for it
                self._log(listener, event, error)

    def _log(self, listener: Listener, event: Event, error: Exception) -> None:
        name = getattr(listener, "__qualname__", type(listener).__qualname__)
        text = f"{name} failed on {type(event).__name__}: {type(error).__name__}"
        if text not in self._logged:  # with its traceback once: some events come many times a second
            self._logged.add(text)
            _log.error("%s; the daemon continues without it, please report this", text, exc_info=error)
