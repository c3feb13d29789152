"""Waiting jobs: whose turn it is, and what their sidecars say meanwhile."""

import os

import pytest
from support.spool import FAILURE, Spool

from whisperd.core import events
from whisperd.core.job import Failure
from whisperd.daemon.jobs import Jobs
from whisperd.daemon.registry import JobState
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


def test_a_question_changes_nothing(jobs):
    """Whoever asks, and however often, the next answer is the same."""
    registry = jobs.registry
    jobs.start(next(registry.candidates()).job, 1, 0.0)

    def answers():
        return (
            [entry.job.name for entry in registry.candidates()],
            [entry.job.name for entry in registry.queue()],
            [(entry.job.name, entry.state) for state in JobState for entry in registry.of(state)],
            [job.name for job in registry.called("a/2.wav")],
            [len(registry), registry.count(*JobState), registry.summary(), registry.snapshot(arriving=1)],
        )

    first = answers()

    assert [answers() for _ in range(3)] == [first] * 3
    assert first[0] == ["b/1.wav", "a/2.wav"]


def test_a_job_has_one_state_at_a_time(spool, jobs):
    """Whatever comes of it; the entry stays the same one until its end."""
    job = next(jobs.registry.candidates()).job
    entry = jobs.registry.get(job.id)
    jobs.start(job, 1, 0.0)
    assert entry.state is JobState.RUNNING
    jobs.attempt_failed(job.id, Failure("engine", "it broke", retryable=True), 0.0)
    assert entry.state is JobState.DELAYED
    jobs.tick(10.0)
    assert entry.state is JobState.QUEUED
    assert jobs.registry.get(job.id) is entry
    assert [state for state in JobState for each in jobs.registry.of(state) if each is entry] == [JobState.QUEUED]
    jobs.reject(entry.job, FAILURE, 10.0)

    assert jobs.registry.get(job.id) is None
