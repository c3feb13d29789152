"""Where workers run: known at once, or after a real process has listed the GPUs of a scripted machine."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from multiprocessing.connection import wait

import pytest

from whisperd.daemon.arrangement import LISTING_SECONDS, Arrangement
from whisperd.settings import config

SOON = 30.0


def settings(**changes):
    return config.validate({"root": "/spool", "engine": "scripted", **changes}, source="test")


@pytest.fixture
def arrange():
    """Make one, and end what it has started."""
    made = []

    def make(**changes):
        asked = settings(**changes)
        made.append(Arrangement(asked.pool_options(), asked.engine_options()))
        return made[-1]

    yield make
    for each in made:
        each.close()


def listed(arranged, now=0.0):
    """Wait for the answer of its process; the names of the devices, one for each worker."""
    deadline = time.monotonic() + SOON
    arranged.tick(now)
    while arranged.waitables():
        assert time.monotonic() < deadline
        wait(arranged.waitables(), timeout=1.0)
        arranged.tick(now)
    return [place.device.name for place in arranged.by_number.values()]


def test_a_device_that_is_named_needs_no_process(arrange):
    """Nor does a machine without a driver for GPUs."""
    named = arrange(device="cuda:1", pool={"workers": 2})
    automatic = arrange()

    assert [place.device.name for place in named.by_number.values()] == ["cuda:1", "cuda:1"]
    assert [place.device.name for place in automatic.by_number.values()] == ["cpu"]
    for each in (named, automatic):
        each.tick(0.0)
        assert each.waitables() == []


def test_every_gpu_gets_workers_once_it_is_known(arrange):
    """Until then there is no place to start one."""
    arranged = arrange(script="devices:2,ok", pool={"workers_by_device": {"cuda:1": 2}})
    assert arranged.by_number == {}

    assert listed(arranged) == ["cuda:0", "cuda:1", "cuda:1"]
    assert arranged.numbers("cuda:1") == [2, 3]
    assert arranged.next_at() == float("inf")


def test_a_list_of_devices_is_looked_up(arrange):
    """One that is not there keeps its place: its workers say what is wrong."""
    assert listed(arrange(script="devices:2,ok", device=["cuda:1", "cuda:5"])) == ["cuda:1", "cuda:5"]


def test_a_reload_lists_again_and_keeps_what_is_known_meanwhile(arrange):
    """Workers that run are not ended because a process is asked."""
    arranged = arrange(script="devices:2,ok")
    listed(arranged)
    after = settings(script="devices:3,ok", pool={"workers": 2})
    arranged.configure(after.pool_options(), after.engine_options())

    assert [place.device.name for place in arranged.by_number.values()] == ["cuda:0"] * 2 + ["cuda:1"] * 2
    assert listed(arranged) == ["cuda:0"] * 2 + ["cuda:1"] * 2 + ["cuda:2"] * 2


@pytest.mark.parametrize(
    "program",
    ["raise SystemExit(7)", "print('no json')", "print('[{\"name\": 5}]')", "import os; os.kill(os.getpid(), 11)"],
    ids=["ends", "other text", "other json", "crashes"],
)
def test_where_the_gpus_cannot_be_listed_the_engine_chooses(arrange, monkeypatch, caplog, program):
    """A broken driver must not keep the daemon from its work."""
    answer_with(monkeypatch, program)

    assert listed(arrange(script="devices:2,ok")) == ["auto"]
    assert "could not be listed, the process that asks the driver gave no answer" in caplog.text


def test_a_driver_that_hangs_is_given_up(arrange, monkeypatch, caplog):
    """Its process is killed."""
    answer_with(monkeypatch, "import time; time.sleep(600)")
    arranged = arrange(script="devices:2,ok")
    arranged.tick(0.0)
    assert arranged.next_at() == LISTING_SECONDS
    arranged.tick(LISTING_SECONDS)

    assert [place.device.name for place in arranged.by_number.values()] == ["auto"]
    assert "did not answer within" in caplog.text
    arranged.close()


def test_without_a_process_to_spare_the_engine_chooses(arrange, monkeypatch):
    """At a limit of processes."""

    def refuse(*arguments, **options):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", refuse)

    assert listed(arrange(script="devices:2,ok")) == ["auto"]


def answer_with(monkeypatch, program):
    popen = subprocess.Popen

    def start(command, **options):
        return popen([sys.executable, "-c", program], **options)

    monkeypatch.setattr(subprocess, "Popen", start)
