"""Snapshots: the current state of the daemon, for the overview page and the metrics; `events` has what happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whisperd.core.job import Job, Progress


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
