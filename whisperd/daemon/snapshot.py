"""Collects the current figures of the daemon, for the overview page and the metrics."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from whisperd.core.snapshots import Vitals, WorkerVitals
from whisperd.daemon.child import WorkerState
from whisperd.daemon.registry import JobState

if TYPE_CHECKING:
    from whisperd.daemon.jobs import Jobs
    from whisperd.daemon.pool import Pool
    from whisperd.intake.inbox import Inbox
    from whisperd.spool.layout import Layout


def vitals(layout: Layout, jobs: Jobs, pool: Pool, inbox: Inbox, *, notices: int) -> Vitals:
    """Collect the figures of the whole daemon, which is cheap enough for every few seconds."""
    disk = shutil.disk_usage(layout.root)
    age = None if inbox.scanned_at is None else time.monotonic() - inbox.scanned_at
    return Vitals(
        arriving=len(inbox),
        queued=jobs.waiting,
        running=jobs.registry.count(JobState.RUNNING),
        ending=jobs.registry.count(JobState.ENDING),
        notices=notices,
        free_bytes=disk.free,
        total_bytes=disk.total,
        scanned_at=None if age is None else time.time() - age,
        workers=tuple(
            WorkerVitals(child.device, child.resident_bytes(), child.device_bytes)
            for child in pool.children()
            if child.state is not WorkerState.BOOTING
        ),
        workers_failing=len(pool.failing),
    )
