"""Gathers what there is at this instant, for those who show it."""

from __future__ import annotations

import itertools
import shutil
import time
from typing import TYPE_CHECKING

from whisperd.core.snapshots import JobsNow, Vitals, WorkerVitals
from whisperd.daemon.child import State

if TYPE_CHECKING:
    from whisperd.daemon.jobs import Jobs
    from whisperd.daemon.pool import Pool
    from whisperd.intake.inbox import Inbox
    from whisperd.spool.layout import Layout

LISTED = 50  # of each kind of job; the rest is counted


def jobs_now(jobs: Jobs, *, arriving: int) -> JobsNow:
    """The jobs that have not ended, and how many uploads wait in the inbox; cheap enough for every turn of the loop."""
    return JobsNow(
        tuple((each.job, each.progress) for each in itertools.islice(jobs.running.values(), LISTED)),
        tuple(itertools.islice(jobs.queue, LISTED)),
        len(jobs.running),
        len(jobs) - len(jobs.running) + arriving,
    )


def vitals(layout: Layout, jobs: Jobs, pool: Pool, inbox: Inbox, *, notices: int) -> Vitals:
    """The figures of the whole daemon; cheap enough for every few seconds."""
    disk = shutil.disk_usage(layout.root)
    age = None if inbox.scanned_at is None else time.monotonic() - inbox.scanned_at
    return Vitals(
        arriving=len(inbox),
        queued=jobs.waiting,
        running=len(jobs.running),
        ending=len(jobs) - jobs.waiting - len(jobs.running),
        notices=notices,
        free_bytes=disk.free,
        total_bytes=disk.total,
        scanned_at=None if age is None else time.time() - age,
        workers=tuple(
            WorkerVitals(child.device, child.resident_bytes(), child.device_bytes)
            for child in pool.children()
            if child.state is not State.BOOTING
        ),
        workers_failing=len(pool.failing),
    )
