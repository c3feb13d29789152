"""What listeners such as logs, metrics and the overview page are told: events, their emitter, and snapshots.

An event describes what happened. A snapshot describes what there is now; a listener asks for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whisperd.core.job import Failure, Job, Progress, Result

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class JobClaimed(Event):
    """An upload was claimed, `waited_seconds` after it was first seen."""

    job: Job
    waited_seconds: float


@dataclass(frozen=True, slots=True)
class JobStarted(Event):
    """A job was given to a worker."""

    job: Job
    worker: int


@dataclass(frozen=True, slots=True)
class JobFinished(Event):
    """A job has completed: the transcripts are in the outbox and the original is in done/."""

    job: Job
    result: Result


@dataclass(frozen=True, slots=True)
class JobFailed(Event):
    """A job has failed: the original is in failed/ and the status file gives the reason."""

    job: Job
    failure: Failure


@dataclass(frozen=True, slots=True)
class JobRetried(Event):
    """An attempt failed, and another one follows after a pause."""

    job: Job
    failure: Failure
    delay_seconds: float
    counted: bool


@dataclass(frozen=True, slots=True)
class JobReleased(Event):
    """A job was released: it waits in the spool for the next start of the daemon."""

    job: Job


@dataclass(frozen=True, slots=True)
class JobRecovered(Event):
    """A job was found in `.work` when the daemon started."""

    job: Job


@dataclass(frozen=True, slots=True)
class UploadRefused(Event):
    """An upload cannot be claimed until a person acts; with `is_unread`, it (usually a folder) cannot be read."""

    name: str
    reason: str
    is_unread: bool = False


@dataclass(frozen=True, slots=True)
class ReadableAgain(Event):
    """A folder or file of the inbox that could not be read is readable again, or was removed."""

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
    """An incomplete upload has not grown for a long time."""

    name: str
    reason: str
    quiet_seconds: float


@dataclass(frozen=True, slots=True)
class CorrectionMade(Event):
    """The transcripts of a completed job were rendered again; `kept` are files that stay because somebody had changed them."""

    place: str
    by: str
    kept: tuple[str, ...]
    job_id: str | None


@dataclass(frozen=True, slots=True)
class CorrectionDenied(Event):
    """A ticket corrects a completed job and cannot be followed."""

    ticket: str
    reason: str


@dataclass(frozen=True, slots=True)
class UploadGivenBack(Event):
    """A recording was changed after it was claimed, and is back in the inbox under `name`, without a transcript."""

    job: Job
    name: str


@dataclass(frozen=True, slots=True)
class WatchRearmed(Event):
    """The watch over the inbox had ended or missed events; a new one was started and the inbox is scanned."""

    reason: str


@dataclass(frozen=True, slots=True)
class PollingStarted(Event):
    """The kernel does not report all changes in the inbox, so that it is now scanned often."""

    reason: str


@dataclass(frozen=True, slots=True)
class ClaimsPaused(Event):
    """Claiming has stopped for now."""

    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class ClaimsResumed(Event):
    """Claiming has resumed."""


@dataclass(frozen=True, slots=True)
class TransitionDelayed(Event):
    """The end of a job could not be written to disk; it is tried again until it succeeds."""

    job: Job
    message: str
    delay_seconds: float


@dataclass(frozen=True, slots=True)
class JobGone(Event):
    """A person removed the files of a job from `.work`; the job is forgotten."""

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
    """A worker process ended; `expected` if the supervisor had told it to."""

    worker: int
    pid: int
    how: str
    expected: bool
    restart_seconds: float | None


@dataclass(frozen=True, slots=True)
class WorkerStopped(Event):
    """A worker that does not answer was told to stop; `rung` is the means: release, SIGABRT or SIGKILL."""

    worker: int
    pid: int
    rung: str
    reason: str


@dataclass(frozen=True, slots=True)
class NotificationDelivered(Event):
    """A notification about the end of a job was delivered; `output` is what a command printed."""

    kind: str
    channel: str
    job_id: str
    name: str
    seconds: float
    output: str


@dataclass(frozen=True, slots=True)
class NotificationDelayed(Event):
    """A notification about the end of a job could not be delivered and is tried again."""

    kind: str
    channel: str
    job_id: str
    name: str
    reason: str
    delay_seconds: float


@dataclass(frozen=True, slots=True)
class NotificationDropped(Event):
    """A notification about the end of a job was given up."""

    kind: str
    channel: str
    job_id: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class NotificationsUnreadable(Event):
    """The folder of waiting notifications cannot be read, so that those of an earlier daemon wait."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class FilesPruned(Event):
    """The oldest files of a folder of the spool were removed, to keep it below its size limit."""

    room: str
    files: int
    freed_bytes: int


@dataclass(frozen=True, slots=True)
class JunkRemoved(Event):
    """Files and empty folders that no person makes were removed from the inbox."""

    count: int
    example: str


@dataclass(frozen=True, slots=True)
class WorkerWorn(Event):
    """A worker holds more memory after a job than `pool.max_memory` allows, and is replaced."""

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
    """Workers of a device cannot be used; the pool keeps trying. With `is_out`, the device has no other one."""

    failure: Failure
    retry_seconds: float
    device: str = ""
    is_out: bool = True


@dataclass(frozen=True, slots=True)
class LoopTurned(Event):
    """The supervisor's loop has turned once; how long each of its steps took."""

    step_seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class WorkersWork(Event):
    """All workers of a device can be used again after `WorkersFail`; with `all_work`, so can those of all devices."""

    device: str = ""
    all_work: bool = True


@dataclass(frozen=True, slots=True)
class JobsNow:
    """The jobs and uploads that have not ended.

    Attributes:
        running: the first of those that workers have.
        queued: the first of those that wait for a worker, in their order.
        running_total: how many run.
        waiting_total: how many others there are, in the inbox or claimed.
    """

    running: tuple[tuple[Job, Progress], ...] = ()
    queued: tuple[Job, ...] = ()
    running_total: int = 0
    waiting_total: int = 0


@dataclass(frozen=True, slots=True)
class WorkerVitals:
    """Device and memory of one worker process."""

    device: str
    resident_bytes: int
    device_bytes: int | None


@dataclass(frozen=True, slots=True)
class DeviceVitals:
    """One device on which workers run.

    Attributes:
        name: such as `cuda:1`.
        model: what the driver calls it; may be empty.
        workers: how many are to run on it.
        reason: why it is out of service; empty while it is in service.
        retry_at: when it is tried again, monotonic clock; None if it is in service, or being tried.
        speed: audio seconds per second of its last jobs; None if it has finished none.
    """

    name: str
    model: str
    workers: int
    reason: str = ""
    retry_at: float | None = None
    speed: float | None = None


@dataclass(frozen=True, slots=True)
class Vitals:
    """The figures of the whole daemon, such as counts, memory and disk space."""

    arriving: int
    queued: int
    running: int
    ending: int
    notices: int
    free_bytes: int
    total_bytes: int
    scanned_at: float | None  # seconds since 1970
    workers: tuple[WorkerVitals, ...]
    workers_failing: int = 0
    devices: tuple[DeviceVitals, ...] = ()


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
        """Pass an event to all listeners."""
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
