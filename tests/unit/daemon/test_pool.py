"""The pool where workers cannot be started, cannot load what their jobs need, or have an engine that failed."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import time
from multiprocessing.connection import wait
from pathlib import Path

import pytest
from support.spool import result

from whisperd.core import events
from whisperd.core.devices import Device, Place
from whisperd.core.errors import BootError
from whisperd.core.job import Failure
from whisperd.daemon.devices import BOOT_DEATHS_MAX, Blame
from whisperd.daemon.pool import Interrupted, Pool
from whisperd.protocol import EngineFailed, Failed, Ready, Work
from whisperd.settings import config
from whisperd.settings.profiles import resolve

SOON = 30.0


class Lab:
    """A pool of real workers with the scripted engine, on a clock that the test moves."""

    def __init__(self, tmp_path, script=None, **changes):
        self.script = tmp_path / "script"
        self.script.write_text("ok")
        self.heard = []
        emitter = events.Emitter()
        emitter.subscribe(self.heard.append)
        settings = config.validate(
            {"root": str(tmp_path), "engine": "scripted", "script": script or f"@{self.script}", **changes},
            source="test",
        )
        self.settings, self.engine = settings, settings.engine_options()
        self.pool = Pool(settings.pool_options(), self.engine, emitter)
        self.now = 0.0

    def until(self, condition):
        """Turn the loop until something is true; the clock of the pool jumps to whatever it waits for."""
        deadline = time.monotonic() + SOON
        while not condition():
            assert time.monotonic() < deadline
            self.pool.tick(self.now)
            if self.pool.waitables():
                wait(self.pool.waitables(), timeout=1.0)
                self.pool.collect(self.now)
            else:
                self.now = self.pool.next_at(self.now)

    def count(self, kind):
        return sum(isinstance(event, kind) for event in self.heard)


@pytest.fixture
def lab(tmp_path):
    lab = Lab(tmp_path)
    yield lab
    lab.pool.kill_all()


def refuse(*arguments, **options):
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def test_a_worker_that_cannot_be_started_ends_the_start_after_some_tries(lab, monkeypatch):
    """One clear line in place of a traceback."""
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(BootError, match="cannot be started: Resource temporarily unavailable"):
        lab.until(lambda: False)

    ended = [event for event in lab.heard if isinstance(event, events.WorkerEnded)]
    assert len(ended) == BOOT_DEATHS_MAX - 1
    assert all("Resource temporarily unavailable" in event.how for event in ended)


def test_a_replacement_that_cannot_be_started_is_tried_again(lab, monkeypatch):
    """EAGAIN at a limit of processes used to end the daemon."""
    lab.until(lambda: lab.count(events.WorkerReady))
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", refuse)
        lab.pool.children()[0].kill()
        lab.until(lambda: lab.pool.trouble is not None)
        assert "cannot be started" in lab.pool.trouble.message
    lab.until(lambda: lab.count(events.WorkerReady) == 2)

    assert lab.pool.trouble is None


def test_a_descriptor_that_cannot_be_had_leaves_no_process(lab, monkeypatch):
    """The process has been started by then."""
    started = []
    popen = subprocess.Popen

    def remember(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    def full(pid):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(subprocess, "Popen", remember)
    monkeypatch.setattr(os, "pidfd_open", full)
    lab.pool.tick(0.0)

    assert lab.pool.children() == []
    assert [process.returncode for process in started] == [-9]


@pytest.mark.parametrize("script", ["boot:fail", "boot:exit:7"])
def test_the_pause_grows_to_five_minutes_and_is_told_once(lab, script):
    """A replacement that cannot load is no reason to end, nor to fill the journal."""
    lab.until(lambda: lab.count(events.WorkerReady))
    lab.script.write_text(script)
    lab.pool.children()[0].kill()
    pauses = [0.0]
    while pauses[-1] < 300.0:
        lab.until(lambda: not lab.pool.children() and lab.pool.trouble is not None)
        pauses.append(lab.pool.retry_at - lab.now)
        lab.now = lab.pool.retry_at
        lab.pool.tick(lab.now)

    assert pauses == sorted(set(pauses))
    assert pauses[-1] == 300.0
    assert lab.count(events.WorkersFail) == 1
    lab.script.write_text("ok")
    lab.until(lambda: lab.count(events.WorkersWork))
    assert lab.pool.trouble is None


def test_ready_is_said_once_for_each_worker(lab):
    """Which the supervisor hears."""
    said = []
    lab.pool.tick(0.0)
    deadline = time.monotonic() + SOON
    while not said:
        assert time.monotonic() < deadline
        said += lab.pool.collect(0.0)

    assert [type(message) for message in said] == [Ready]


BROKEN = Failure("engine", "CUDA error", "look at the device", retryable=True)


class Mute:
    """The supervisor's end of the pipe of a worker that says what the test wants."""

    def __init__(self):
        self.messages = []

    def receive(self, now, *, has_ended):
        said, self.messages = self.messages, []
        return said


@pytest.fixture
def child(lab, monkeypatch, tmp_path):
    """A worker that is ready and does nothing; `says` makes it speak."""
    lab.until(lambda: lab.count(events.WorkerReady))
    child = lab.pool.children()[0]
    mute = Mute()
    monkeypatch.setattr(child, "send", lambda message: None)
    monkeypatch.setattr(child, "receive", mute.receive)

    def give(*job_ids):
        for job_id in job_ids:
            lab.pool.assign(child, Work(job_id, tmp_path, tmp_path, None), lab.now)

    def says(message):
        mute.messages.append(message)
        return lab.pool.collect(lab.now)

    child.give, child.says = give, says
    return child


def test_of_a_batch_all_are_suspects_and_others_are_not(child):
    """What the engine has heard nothing of is not to blame."""
    child.give("a", "b", "c")

    assert child.says(EngineFailed(BROKEN, ("a", "b", "not its own"))) == [
        Interrupted("a", BROKEN, Blame.SUSPECT),
        Interrupted("b", BROKEN, Blame.SUSPECT),
        Interrupted("c", BROKEN, Blame.NONE),
    ]


@pytest.mark.parametrize("job_ids", [(), ("not its own",)])
def test_a_worker_that_cannot_say_what_was_in_the_batch_makes_all_suspects(child, job_ids):
    """Somebody must be, or they would be tried again for ever."""
    child.give("a", "b")

    assert {each.blame for each in child.says(EngineFailed(BROKEN, job_ids))} == {Blame.SUSPECT}


def test_only_the_one_job_of_a_fresh_worker_is_guilty(lab, child):
    """Where it had others before, one of those may have broken the engine; the device has proven that it works."""
    lab.pool.devices.finished("cpu", "before", result(), lab.now)
    child.give("a")

    assert child.says(EngineFailed(BROKEN, ("a",))) == [Interrupted("a", BROKEN, Blame.GUILTY)]


def test_on_a_device_that_has_proven_nothing_the_one_job_may_be_innocent(lab, child):
    """A driver that broke every worker used to cost every upload all its attempts."""
    child.give("a")

    assert child.says(EngineFailed(BROKEN, ("a",))) == [Interrupted("a", BROKEN, Blame.DEVICE, "cpu")]
    assert lab.pool.devices.strike("cpu", "a") is Blame.GUILTY


def test_the_last_of_many_jobs_is_a_suspect(lab, child):
    """It may have met what an earlier one left."""
    child.give("before")
    child.drop("before", lab.now)
    child.give("a")

    assert child.says(EngineFailed(BROKEN, ("a",))) == [Interrupted("a", BROKEN, Blame.SUSPECT)]


def test_a_job_that_was_being_taken_away_fails_for_that_reason(lab, child):
    """It is past its deadline, whatever the engine says meanwhile."""
    late = Failure("timeout", "not done")
    child.give("a", "b")
    child.doom(["a"], late, lab.now)

    assert child.says(EngineFailed(BROKEN, ("a", "b"))) == [Failed("a", late), Interrupted("b", BROKEN, Blame.SUSPECT)]


def test_a_worker_whose_engine_failed_is_replaced(lab, child):
    """Even if it does not end by itself; it gets no other job, and the event says why."""
    child.give("a")
    child.says(EngineFailed(BROKEN, ("a",)))

    assert lab.pool.free(lab.engine) is None
    assert lab.pool.busy() == []
    lab.until(lambda: lab.pool.free(lab.engine) is not None)
    assert lab.pool.children()[0].pid != child.pid
    retired = [event for event in lab.heard if isinstance(event, events.WorkerRetired)]
    assert retired == [events.WorkerRetired(1, child.pid, BROKEN, 1)]
    assert [event.how for event in lab.heard if isinstance(event, events.WorkerEnded)] == ["has ended"]


@pytest.fixture
def shared(tmp_path):
    """A pool whose worker takes several jobs."""
    lab = Lab(tmp_path, script="windows,ok")
    lab.until(lambda: lab.count(events.WorkerReady))
    yield lab
    lab.pool.kill_all()


def test_a_job_that_must_be_alone_shares_its_worker_with_nobody(shared, tmp_path):
    """Neither with those that are there, nor with those that come."""
    pool, engine = shared.pool, shared.engine
    spec = resolve(shared.settings, "a.mp3")
    child = pool.free(engine, alone=True)
    pool.assign(child, Work("a", tmp_path, tmp_path, spec), 0.0)
    assert pool.free(engine) is child
    assert pool.free(engine, alone=True) is None
    child.drop("a", 0.0)

    pool.assign(pool.free(engine, alone=True), Work("b", tmp_path, tmp_path, spec), 0.0, alone=True)
    assert pool.free(engine) is None
    child.drop("b", 0.0)
    assert pool.free(engine) is child


def test_a_fresh_worker_takes_the_place_of_an_idle_one(lab, tmp_path):
    """For a job that must be alone in it."""
    lab.until(lambda: lab.count(events.WorkerReady))
    used = lab.pool.free(lab.engine, fresh=True)
    lab.pool.assign(used, Work("a", tmp_path, tmp_path / "a.mp3", resolve(lab.settings, "a.mp3")), lab.now)
    lab.until(lambda: not used.jobs)
    assert lab.pool.free(lab.engine) is used
    assert lab.pool.free(lab.engine, fresh=True) is None

    lab.pool.renew(lab.engine)
    lab.until(lambda: lab.pool.free(lab.engine, fresh=True) is not None)
    assert lab.pool.children()[0] is not used


@pytest.fixture
def two(tmp_path):
    """A pool with two GPUs, whose workers take four jobs each."""
    lab = Lab(tmp_path, script="windows,devices:2,slow:9", pool={"jobs_per_worker": 4})
    try:
        lab.until(lambda: lab.count(events.WorkerReady) == 2)
        lab.first, lab.second = lab.pool.children()
        for child in (lab.first, lab.second):
            child.send = lambda message: None
        yield lab
    finally:
        lab.pool.kill_all()


def fill(lab, tmp_path, child, count):
    for _ in range(count):
        lab.pool.assign(child, Work(f"job {len(lab.heard)} {len(child.jobs)}", tmp_path, tmp_path, None), lab.now)


def measure(lab, **speeds):
    for name, speed in speeds.items():
        device = name.replace("_", ":")
        lab.pool.devices.begins(device, 0.0)
        lab.pool.devices.finished(device, "before", result(duration_seconds=10.0 * speed), 10.0)


def test_a_job_goes_where_it_is_likely_to_be_done_first(two, tmp_path):
    """Without figures to the worker with fewer jobs; with them a fast one may have more."""
    assert two.pool.free(two.engine) is two.first
    fill(two, tmp_path, two.first, 1)
    assert two.pool.free(two.engine) is two.second
    measure(two, cuda_0=30.0, cuda_1=10.0)
    assert two.pool.free(two.engine) is two.first
    fill(two, tmp_path, two.first, 2)
    assert two.pool.free(two.engine) is two.second


def test_a_long_recording_goes_to_a_fast_device(two, tmp_path):
    """However many jobs that one has, while it has room."""
    measure(two, cuda_0=30.0, cuda_1=10.0)
    fill(two, tmp_path, two.first, 3)
    assert two.pool.free(two.engine) is two.second
    assert two.pool.free(two.engine, is_long=True) is two.first
    fill(two, tmp_path, two.first, 1)

    assert two.pool.free(two.engine, is_long=True) is two.second


def test_the_last_slot_is_for_a_short_recording(two, tmp_path):
    """A long one would keep it for hours; a job that the pool has no room for anyway changes nothing."""
    fill(two, tmp_path, two.first, 4)
    fill(two, tmp_path, two.second, 3)

    assert two.pool.free(two.engine, is_long=True) is None
    assert two.pool.free(two.engine) is two.second


def test_a_single_slot_is_for_every_recording(lab):
    """Nothing would ever run in it."""
    lab.until(lambda: lab.count(events.WorkerReady))

    assert lab.pool.free(lab.engine, is_long=True) is not None


def test_a_job_that_failed_on_a_device_goes_to_another_one(two):
    """Unless there is none; a condemned one is nobody's."""
    assert two.pool.free(two.engine, avoid=["cuda:0"]) is two.second
    assert two.pool.free(two.engine, avoid=["cuda:0", "cuda:1"]) is two.first
    two.pool.devices.condemn("cuda:1", BROKEN, [2], two.now)
    assert two.pool.free(two.engine, avoid=["cuda:0"]) is two.first
    assert two.pool.trouble is None
    two.pool.devices.condemn("cuda:0", BROKEN, [1], two.now)
    assert two.pool.free(two.engine) is None
    assert two.pool.trouble is BROKEN


def test_a_worker_keeps_to_its_place(lab):
    """It runs on its processors, sees no GPU but its own, and reports it by the name that people know."""
    cpu = min(os.sched_getaffinity(0))
    instance = Device("MIG-1", "cuda:0", "MIG-1")
    lab.pool.arrangement.by_number = {1: Place(instance, 3, (cpu,))}
    lab.until(lambda: lab.count(events.WorkerReady))

    (child,) = lab.pool.children()
    environment = Path(f"/proc/{child.pid}/environ").read_bytes().split(b"\0")
    assert {b"CUDA_VISIBLE_DEVICES=MIG-1", b"OMP_NUM_THREADS=3"} <= set(environment)
    assert os.sched_getaffinity(child.pid) == {cpu}
    assert child.device == "MIG-1"


def test_a_model_that_one_device_cannot_load_is_tried_on_another(tmp_path):
    """It may have less memory; only where none can is the model broken."""
    lab = Lab(tmp_path, script=f"devices:2,@{tmp_path}/{{device}}")
    try:
        lab.until(lambda: lab.count(events.WorkerReady) == 2)
        other = dataclasses.replace(lab.engine, model="other")
        for number in (0, 1):
            (tmp_path / f"cuda:{number}").write_text("boot:fail" if number == 0 else "ok")
        assert lab.pool.replaceable(other).place.device.name == "cuda:0"
        lab.pool.prepare(other)
        lab.until(lambda: (child := lab.pool.replaceable(other)) and child.place.device.name == "cuda:1")
        assert lab.pool.broken == {}
        lab.until(lambda: not lab.pool.is_coming(other))
        lab.pool.prepare(other)
        lab.until(lambda: lab.pool.free(other))

        assert lab.pool.free(other).device == "cuda:1"
        assert lab.pool.broken == {}
    finally:
        lab.pool.kill_all()
