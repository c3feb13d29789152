"""When a device is out of service, for how long, and who is to blame for the end of a worker."""

from __future__ import annotations

import pytest
from support.spool import result

from whisperd.core import events
from whisperd.core.job import Failure
from whisperd.daemon.devices import Blame, Devices

BROKEN = Failure("engine", "CUDA error", "look at the device", retryable=True)


class Desk:
    """Two devices with two slots each, and what was told of them."""

    def __init__(self):
        self.heard = []
        emitter = events.Emitter()
        emitter.subscribe(self.heard.append)
        self.devices = Devices(emitter)

    def strike(self, *jobs, name="cuda:1"):
        return [self.devices.strike(name, job) for job in jobs]

    def condemn(self, now=0.0, name="cuda:1"):
        """Condemn a device; how long it rests."""
        self.devices.condemn(name, BROKEN, [1, 2], now)
        return self.devices.of(name).retry_at - now

    def finish(self, job="good", name="cuda:1", now=0.0, **changes):
        return self.devices.finished(name, job, result(**changes), now)

    def told(self):
        said, self.heard[:] = [type(event).__name__ for event in self.heard], []
        return said


@pytest.fixture
def desk():
    return Desk()


def test_a_device_that_has_proven_nothing_is_suspected_before_its_job(desk):
    """Until the same job ends a second worker there, and no other one has."""
    assert desk.strike("a", "a", "a") == [Blame.DEVICE, Blame.GUILTY, Blame.GUILTY]
    assert not desk.devices.is_doubtful("cuda:1")


def test_different_jobs_that_end_fresh_workers_show_that_the_device_is_broken(desk):
    """And none of them pays."""
    assert desk.strike("a", "b", "a") == [Blame.DEVICE] * 3
    assert desk.devices.is_doubtful("cuda:1")
    assert not desk.devices.is_doubtful("cuda:0")


@pytest.mark.parametrize("proof", ["finish", "advance"])
def test_on_a_device_that_works_the_job_is_guilty(desk, proof):
    """Once; after its worker ended, the device must prove again that it works."""
    desk.finish() if proof == "finish" else desk.devices.advanced("cuda:1")

    assert desk.strike("a", "b") == [Blame.GUILTY, Blame.DEVICE]


def test_a_device_that_failed_must_finish_a_job(desk):
    """To begin one is no proof: it may fail after some seconds, each time."""
    desk.strike("a")
    desk.devices.advanced("cuda:1")
    assert desk.strike("b") == [Blame.DEVICE]
    desk.finish()
    assert desk.strike("c") == [Blame.GUILTY]


def test_an_unexplained_end_takes_trust_away(desk):
    """A card that fell off the bus ends the worker that was at work; the next jobs must not pay for it."""
    desk.finish()
    desk.devices.died("cuda:1")

    assert desk.strike("a") == [Blame.DEVICE]


def test_a_condemned_device_rests_longer_each_time_until_it_finishes_a_job(desk):
    """Being ready is no proof, and is not told as one; one more failure condemns it again."""
    rests = []
    for number in range(10):
        desk.strike(f"job {number}", "other")
        rests.append(desk.condemn())
        assert desk.devices.condemned() == {"cuda:1"}
        assert desk.devices.why_out("cuda:1", [1, 2]) is BROKEN
        assert len(desk.devices) == 2
        desk.devices.ready("cuda:1", 1)
        assert desk.devices.condemned() == set()
        assert desk.devices.why_out("cuda:1", [1, 2]) is BROKEN
    assert rests == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert desk.told() == ["WorkersFail"]
    assert desk.devices.is_doubtful("cuda:1")

    desk.finish()
    assert desk.told() == ["WorkersWork"]
    assert desk.devices.latest is desk.devices.why_out("cuda:1", [1, 2]) is None
    assert not desk.devices.is_doubtful("cuda:1")
    assert desk.condemn() == 1


def test_a_worker_that_was_at_work_meanwhile_absolves_its_device(desk):
    """It has finished a job there."""
    desk.condemn()
    desk.finish()

    assert (desk.devices.condemned(), len(desk.devices), desk.told()) == (set(), 0, ["WorkersFail", "WorkersWork"])


def test_a_job_that_another_device_finishes_accuses_the_one_that_failed_with_it(desk):
    """The recording is good, then."""
    desk.strike("a")

    assert desk.finish("a", name="cuda:0") == {"cuda:1"}
    assert desk.finish("b", name="cuda:0") == set()


def test_a_device_with_a_worker_left_is_in_service(desk):
    """One of two cannot be loaded, for want of memory perhaps."""
    desk.devices.load_failed("cuda:0", 1, BROKEN, [1, 2])
    assert desk.devices.why_out("cuda:0", [1, 2]) is None
    desk.devices.load_failed("cuda:0", 2, BROKEN, [1, 2])
    assert desk.devices.why_out("cuda:0", [1, 2]) is BROKEN
    desk.devices.ready("cuda:0", 1)
    desk.devices.ready("cuda:0", 2)

    assert desk.told() == ["WorkersFail", "WorkersWork"]


def test_devices_are_told_apart(desk):
    """Each failure is told once for each device; only the last that works again ends the trouble of all."""
    for name, number in (("cuda:0", 1), ("cuda:1", 2), ("cuda:0", 1)):
        desk.devices.load_failed(name, number, BROKEN, [number])
    desk.devices.ready("cuda:0", 1)
    desk.devices.ready("cuda:1", 2)

    assert [(event.device, getattr(event, "all_work", None)) for event in desk.heard] == [
        ("cuda:0", None),
        ("cuda:1", None),
        ("cuda:0", False),
        ("cuda:1", True),
    ]


def test_what_is_no_longer_configured_is_forgotten(desk):
    """It may come back repaired."""
    desk.condemn()
    desk.devices.keep(["cuda:0"])

    assert (desk.devices.condemned(), len(desk.devices)) == (set(), 0)


def test_the_speed_is_that_of_all_jobs_together(desk):
    """While it has some: two that end together took their time once, and pauses do not count."""
    assert desk.devices.speed("cuda:0") is None
    desk.devices.begins("cuda:0", 100.0)
    desk.finish(name="cuda:0", now=110.0, duration_seconds=90.0)
    assert desk.devices.speed("cuda:0") == 9.0
    desk.finish(name="cuda:0", now=110.0, duration_seconds=90.0)
    assert desk.devices.speed("cuda:0") == pytest.approx(19.0)
    for number in range(2, 60):
        desk.devices.begins("cuda:0", 100.0 * number)
        desk.finish(name="cuda:0", now=100.0 * number + 50.0, duration_seconds=100.0)

    assert desk.devices.speed("cuda:0") == pytest.approx(2.0, abs=0.1)
