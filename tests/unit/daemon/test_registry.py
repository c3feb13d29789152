"""Waiting jobs: whose turn it is, and what their sidecars say meanwhile."""

import os

import pytest
from support.spool import FAILURE, Spool

from whisperd.core import events
from whisperd.daemon.jobs import Jobs
from whisperd.daemon.status_files import REFRESH_SECONDS
from whisperd.spool.layout import LOCK
from whisperd.spool.recover import Recovery


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path)


@pytest.fixture
def jobs(spool):
    """Three jobs of two folders that wait."""
    jobs = Jobs(spool.store, events.Emitter(), max_attempts=3, retry_seconds=1.0)
    for name in ("a/1.wav", "a/2.wav", "b/1.wav"):
        jobs.receive(spool.take(name))
    return jobs


def test_folders_take_turns(jobs):
    """Whoever sends many delays the others by one each."""
    assert [entry.job.name for entry in jobs.registry.candidates()] == ["a/1.wav", "b/1.wav", "a/2.wav"]


def test_behind_a_job_that_is_rejected_the_next_has_its_turn_at_once(jobs):
    """A model that does not load fails one after the other, and keeps nobody else waiting."""
    seen = []
    for job in (entry.job for entry in jobs.registry.candidates()):
        seen.append(job.name)
        if job.name.startswith("a/"):
            jobs.reject(job, FAILURE, 0.0)

    assert sorted(seen) == ["a/1.wav", "a/2.wav", "b/1.wav"]
    assert (len(list(jobs.registry.queue())), jobs.failed) == (1, 2)


def test_of_a_job_that_is_gone_only_that_one_is_forgotten(spool, jobs):
    """It may have overtaken the head of the queue, which is still to be done."""
    (spool.layout.work / LOCK).touch()
    gone = list(jobs.registry.candidates())[1].job
    (spool.layout.job_directory(gone.id) / gone.original).unlink()

    assert jobs.forget_gone(gone)
    assert [entry.job.name for entry in jobs.registry.candidates()] == ["a/1.wav", "a/2.wav"]


def test_the_sidecar_of_a_job_that_waits_for_weeks_is_written_anew_every_day(spool, jobs):
    """Or systemd-tmpfiles would take it for an old one."""
    jobs.restore(Recovery(), 0.0)
    jobs.tick(0.0)
    path = spool.layout.outbox / "b/1.wav.status.json"
    os.utime(path, ns=(0, 0))
    jobs.tick(REFRESH_SECONDS - 1.0)
    before = path.stat().st_mtime_ns
    jobs.tick(REFRESH_SECONDS + 10.0)

    assert before == 0
    assert path.stat().st_mtime_ns > 0
