"""Updates the status files of claimed jobs and their texts so far; an error here never affects a job."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from whisperd.core.display import printable
from whisperd.core.job import Phase, Progress
from whisperd.core.slices import Slice, advance
from whisperd.daemon.registry import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.core.job import Failure, Job
    from whisperd.daemon.registry import Entry, Registry
    from whisperd.spool.store import Store

RUNNING_SECONDS = 1.0  # how often that of a running job is written
POSITIONS_SECONDS = 5.0  # how often those of the queue are
REFRESH_SECONDS = 86_400.0  # how often all of them are, or systemd-tmpfiles takes one that waits for an old file

_log = logging.getLogger(__name__)


class StatusWriter:
    """Updates the status files of claimed jobs for `Jobs`, in slices of the loop's time."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._obstacle: str | None = None  # why nothing in the queue can start
        self._positions_at = float("-inf")
        self._refresh_at = float("inf")
        self._pass: Iterator[None] | None = None  # over the positions, once it has begun

    def start(self, now: float) -> None:
        """Begin after the spool was read; status files of waiting jobs are written again once a day."""
        self._refresh_at = now + REFRESH_SECONDS

    def show(self, job: Job, progress: Progress, *, sync: bool = False, reason: str | None = None) -> None:
        """Update the status file of a job; if it cannot be written, the next change tries again.

        A job that is transcribed has its text shown as well, and no other.
        """
        if progress.phase is Phase.TRANSCRIBING:
            self._store.partials.show(job)
        else:
            with contextlib.suppress(OSError):  # again at the next change, and at the end, which waits for it
                self._store.partials.hide(job)
        try:
            self._store.show(job, progress=progress, sync=sync, reason=reason)
        except OSError as error:
            _log.debug(
                "%s: its status file cannot be written: %s", printable(job.name), error.strerror, extra={"job": job.id}
            )

    def show_queued(self, entry: Entry) -> None:
        """Update the status file of a job that was just queued."""
        entry.last_status.position = self._registry.count(JobState.QUEUED)
        self.show(entry.job, Progress(queue_position=entry.last_status.position), sync=True, reason=self._obstacle)

    def explain(self, trouble: Failure | None) -> None:
        """Write into the status files of queued jobs why no worker can be used, or that one can be used again."""
        obstacle = None if trouble is None else f"no worker can be used, {trouble.message}; it is tried again"
        if obstacle != self._obstacle:
            self._obstacle = obstacle
            self._pass = None
            self._forget_positions()
            self._positions_at = float("-inf")

    def tick(self, now: float) -> float:
        """Write what has changed, for a slice of time; returns the time of the next call."""
        share = Slice()
        for entry, attempt in sorted(self._registry.attempts(), key=lambda each: each[0].last_status.at):
            if now - entry.last_status.at >= RUNNING_SECONDS and attempt.progress != entry.last_status.progress:
                entry.last_status.at, entry.last_status.progress = now, attempt.progress
                self.show(entry.job, attempt.progress, reason=attempt.reason)
                if share.is_used_up():
                    break  # the one that has waited longest is first
        if self._pass is None and now - self._positions_at >= POSITIONS_SECONDS:
            self._positions_at = now
            if now >= self._refresh_at:
                self._refresh_at = now + REFRESH_SECONDS
                self._forget_positions()
            self._pass = self._show_positions()
        if self._pass is not None and not advance(self._pass):
            self._pass = None
        if self._pass is not None:
            return now
        return now + RUNNING_SECONDS if self._registry.count(JobState.RUNNING) else float("inf")

    def _forget_positions(self) -> None:
        for entry in self._registry.of(JobState.QUEUED):
            entry.last_status.position = None

    def _show_positions(self) -> Iterator[None]:
        """Update the status files of queued jobs one by one; some may leave the queue meanwhile."""
        for position, entry in enumerate(self._registry.queue(), start=1):
            if entry.last_status.position != position:
                entry.last_status.position = position
                self.show(entry.job, Progress(queue_position=position), reason=self._obstacle)
                yield
