"""The pool where workers cannot be started, or cannot load what their jobs need."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from multiprocessing.connection import wait

import pytest

from whisperd.core import events
from whisperd.core.errors import BootError
from whisperd.daemon.pool import BOOT_DEATHS_MAX, Pool
from whisperd.protocol import Ready
from whisperd.settings import config

SOON = 30.0


class Lab:
    """A pool of real workers with the scripted engine, on a clock that the test moves."""

    def __init__(self, tmp_path):
        self.script = tmp_path / "script"
        self.script.write_text("ok")
        self.heard = []
        emitter = events.Emitter()
        emitter.subscribe(self.heard.append)
        settings = config.validate(
            {"root": str(tmp_path), "engine": "scripted", "script": f"@{self.script}"}, source="test"
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
            if self.pool.children():
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
