"""The ends of jobs: retry or fail; originals touched during the run are compared in slices, with a scripted disk and clock."""

import hashlib
import os

import pytest
from support.spool import Spool, result

from whisperd.core import events, slices
from whisperd.core.job import Failure, Job, Phase, Signature
from whisperd.daemon import endings
from whisperd.daemon.endings import GiveUp, Retry, decide
from whisperd.daemon.jobs import Jobs
from whisperd.intake.complete import BLOCK_BYTES

STEP_SECONDS = 0.05  # the loop may not be away for longer
SIZE_BYTES = 24 << 20
BROKEN = Failure("engine", "broken", retryable=True)


class Disk:
    """A clock that only reading moves on."""

    def __init__(self, monkeypatch, bytes_per_second):
        self.now = 1000.0
        self.read_bytes = 0
        self._speed = bytes_per_second
        self._pread = os.pread
        monkeypatch.setattr(os, "pread", self.pread)
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr(slices.time, "monotonic", lambda: self.now)

    def pread(self, fd, length, at):
        block = self._pread(fd, length, at)
        self.now += len(block) / self._speed
        self.read_bytes += len(block)
        return block


class Bench:
    """One job that has been transcribed, over an original that can be touched."""

    def __init__(self, root):
        self.spool = Spool(root)
        self.told = []
        emitter = events.Emitter()
        emitter.subscribe(self.told.append)
        self.jobs = Jobs(self.spool.store, emitter, max_attempts=1, retry_seconds=30.0)

    def run(self, name, content):
        """As far as the message of the worker that it has rendered everything; returns the job and that message."""
        job = self.spool.take(name, content)
        self.jobs.admit(job)
        job = self.jobs.start(job, 1, 0.0)
        self.spool.render(job)
        return job, result(sha256=hashlib.sha256(content).hexdigest())

    def original(self, job):
        return self.spool.layout.job_directory(job.id) / job.original

    def has_told(self, kind):
        return any(isinstance(event, kind) for event in self.told)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "spool")


def test_a_large_original_is_compared_in_slices_of_the_loop(bench, monkeypatch):
    """At 20 MB/s the loop would stand still for more than a second, and systemd kills a daemon that does for long."""
    job, done = bench.run("a.wav", bytes(SIZE_BYTES))
    bench.original(job).chmod(0o600)
    disk = Disk(monkeypatch, bytes_per_second=20e6)
    steps = []

    def step(act, *arguments):
        before = disk.now
        act(*arguments)
        steps.append(disk.now - before)

    step(bench.jobs.finished, job.id, done, disk.now)
    while not bench.has_told(events.JobFinished):
        step(bench.jobs.tick, disk.now)

    assert max(steps) <= STEP_SECONDS
    assert disk.read_bytes == SIZE_BYTES
    assert set(bench.spool.files("done")) == {"a.wav"}


def test_a_short_job_does_not_wait_for_the_comparison_of_a_long_one(bench, monkeypatch):
    """Its end is written in the next turn."""
    long, done_long = bench.run("long.wav", bytes(SIZE_BYTES))
    short, done_short = bench.run("short.wav", bytes(BLOCK_BYTES + 1))
    for job in (long, short):
        bench.original(job).chmod(0o600)
    disk = Disk(monkeypatch, bytes_per_second=20e6)
    bench.jobs.finished(long.id, done_long, disk.now)
    bench.jobs.tick(disk.now)
    assert bench.spool.sidecar("long.wav")["phase"] == Phase.PUBLISHING.value
    assert "its content is compared" in bench.spool.sidecar("long.wav")["reason"]
    bench.original(short).chmod(0o644)
    os.utime(bench.original(short), ns=(short.signature.mtime_ns, short.signature.mtime_ns))
    bench.jobs.finished(short.id, done_short, disk.now)
    turns = 0
    while not (bench.spool.layout.root / "done/short.wav").exists():
        bench.jobs.tick(disk.now)
        turns += 1

    assert disk.read_bytes < SIZE_BYTES
    assert turns <= 3


def test_a_result_that_was_not_compared_to_its_end_costs_no_attempt(bench, monkeypatch):
    """The daemon stops meanwhile: with one attempt at most, the next one said that the job had killed its worker."""
    job, done = bench.run("a.wav", bytes(SIZE_BYTES))
    bench.original(job).chmod(0o600)
    disk = Disk(monkeypatch, bytes_per_second=20e6)
    bench.jobs.finished(job.id, done, disk.now)
    assert bench.jobs.is_comparing
    bench.jobs.close()

    recovery = bench.spool.restart(max_attempts=1)
    assert [(each.id, each.attempts, each.suspect) for each in recovery.queued] == [(job.id, 0, False)]


def test_a_writer_seen_at_the_end_of_a_long_comparison_is_waited_for(bench, monkeypatch):
    """Comparing takes longer than a writer is waited for; its time counts from when it is seen."""
    job, done = bench.run("a.wav", bytes(SIZE_BYTES))
    bench.original(job).chmod(0o600)
    disk = Disk(monkeypatch, bytes_per_second=SIZE_BYTES / (2 * endings.WRITER_SECONDS))
    with bench.original(job).open("r+b"):
        bench.jobs.finished(job.id, done, disk.now)
        while bench.jobs.is_comparing:
            bench.jobs.tick(disk.now)
        assert len(bench.jobs) == 1
        assert "open for writing" in bench.spool.sidecar("a.wav")["reason"]


def job(attempts):
    return Job("1", "a", "a", "original", Signature(0, 0, 0, 0, 0, 0), "", "", attempts=attempts)


def verdict(attempts, failure=BROKEN):
    return decide(job(attempts), failure, max_attempts=3, retry_seconds=30.0)


def test_the_pause_doubles():
    """A machine in trouble is not hammered."""
    assert verdict(1) == Retry(30.0, counted=True)
    assert verdict(2) == Retry(60.0, counted=True)


def test_the_last_attempt_is_the_end():
    """With the reason of that attempt."""
    assert verdict(3) == GiveUp(BROKEN)


def test_what_cannot_get_better_is_not_tried_again():
    """A file that is no recording stays none."""
    failure = Failure("not_media", "no recording")

    assert verdict(1, failure) == GiveUp(failure)


@pytest.mark.parametrize("code", ["spool_full", "no_resources"])
@pytest.mark.parametrize("attempts", [1, 3, 99])
def test_a_machine_at_its_limits_costs_no_attempt(attempts, code):
    """A full disk, or a limit of processes, is nobody's fault, however often it happens."""
    assert verdict(attempts, Failure(code, "no room", retryable=True)) == Retry(30.0, counted=False)


def test_the_pause_has_an_end():
    """An hour at most."""
    assert decide(job(50), BROKEN, max_attempts=100, retry_seconds=30.0) == Retry(3600.0, counted=True)


def test_each_interruption_doubles_the_pause():
    """A weekend with a full disk must not be spent decoding the same recordings."""
    full = Failure("spool_full", "no room", retryable=True)
    pauses = [
        decide(job(1), full, max_attempts=3, retry_seconds=30.0, interruptions=count).delay_seconds
        for count in range(9)
    ]

    assert pauses == [30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0]
