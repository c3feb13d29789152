"""Whose turn it is among waiting jobs."""

import pytest
from support.spool import FAILURE, Spool

from whisperd import events
from whisperd.daemon.jobs import Jobs


@pytest.fixture
def jobs(tmp_path):
    """Three jobs of two folders that wait."""
    spool = Spool(tmp_path)
    jobs = Jobs(spool.store, events.Emitter(), max_attempts=3, retry_seconds=1.0)
    for name in ("a/1.wav", "a/2.wav", "b/1.wav"):
        jobs.receive(spool.take(name))
    return jobs


def test_folders_take_turns(jobs):
    """Whoever sends many delays the others by one each."""
    assert [job.name for job in jobs.candidates()] == ["a/1.wav", "b/1.wav", "a/2.wav"]


def test_behind_a_job_that_is_rejected_the_next_has_its_turn_at_once(jobs):
    """A model that does not load fails one after the other, and keeps nobody else waiting."""
    seen = []
    for job in jobs.candidates():
        seen.append(job.name)
        if job.name.startswith("a/"):
            jobs.reject(job, FAILURE, 0.0)

    assert sorted(seen) == ["a/1.wav", "a/2.wav", "b/1.wav"]
    assert (len(jobs.queue), jobs.failed) == (1, 2)
