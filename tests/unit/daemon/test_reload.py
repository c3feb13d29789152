"""A new configuration: when it is applied, and with which worker."""

from __future__ import annotations

import time
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from whisperd.core import events
from whisperd.core.errors import ConfigError
from whisperd.daemon.child import GivenJob, WorkerState
from whisperd.daemon.pool import Pool
from whisperd.daemon.reload import Reload
from whisperd.protocol import Work
from whisperd.settings import config, profiles

SOON = 30.0


class Lab:
    """A pool of real workers with the scripted engine, and reloads of it, on a clock that the test moves."""

    def __init__(self, tmp_path):
        self.path = tmp_path
        self.heard, self.notices, self.applied = [], [], []
        emitter = events.Emitter()
        emitter.subscribe(self.heard.append)
        self.next = self.settings()
        self.pool = Pool(self.next.pool_options(), self.next.engine_options(), emitter)
        self.reload = Reload(self.next, self.read, self.apply, self, emitter, place=self.pool.trial_place)
        self.now = 0.0

    def settings(self, **changes):
        return config.validate({"root": str(self.path), "engine": "scripted", **changes}, source="test")

    def read(self):
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    def apply(self, settings, now, trial):
        self.applied.append(settings)
        self.pool.configure(settings)
        if trial is not None:
            self.pool.adopt(*trial, now)

    def reloading(self):
        self.notices.append("RELOADING")

    def reloaded(self):
        self.notices.append("READY")

    def begin(self, settings):
        self.next = settings
        self.reload.begin(self.now)

    def until(self, condition):
        deadline = time.monotonic() + SOON
        while not condition():
            assert time.monotonic() < deadline
            self.pool.tick(self.now)
            self.reload.tick(self.now)
            wait([*self.pool.waitables(), *self.reload.waitables()], timeout=0.1)
            self.pool.collect(self.now)

    def ready(self, count=1):
        self.until(lambda: sum(child.state is WorkerState.READY for child in self.pool.children()) >= count)
        return [child.pid for child in self.pool.children()]

    def occupy(self, child):
        """Give a worker a job, as far as the pool can tell."""
        spec = profiles.resolve(self.settings(), "a.wav")
        work = Work("job", self.path, self.path / "a.wav", spec)
        child.jobs[work.job_id] = GivenJob(work, 0.0, 1e9)

    def refusals(self):
        return [event.reason for event in self.heard if isinstance(event, events.ConfigRefused)]


@pytest.fixture
def lab(tmp_path):
    lab = Lab(tmp_path)
    yield lab
    lab.reload.close()
    lab.pool.kill_all()


def test_without_another_engine_it_is_applied_at_once(lab):
    """And no worker is started or ended for it."""
    before = lab.ready()
    lab.begin(lab.settings(pool={"queue_size": 5}))
    lab.pool.tick(lab.now)

    assert [settings.pool.queue_size for settings in lab.applied] == [5]
    assert lab.notices == ["RELOADING", "READY"]
    assert lab.reload.waitables() == []
    assert [child.pid for child in lab.pool.children()] == before


def test_another_engine_is_loaded_first_and_its_worker_kept(lab):
    """Until it is ready nothing of the new configuration counts; then the old worker, which is idle, ends."""
    (before,) = lab.ready()
    lab.begin(lab.settings(model="other"))
    assert (lab.applied, lab.notices) == ([], ["RELOADING"])
    assert "other" in lab.reload.status
    lab.until(lambda: lab.applied)
    lab.until(lambda: len(lab.pool.children()) == 1)

    (child,) = lab.pool.children()
    assert (child.options.model, child.number) == ("other", 1)
    assert child.pid != before
    assert lab.notices == ["RELOADING", "READY"]
    assert lab.reload.status == ""
    assert sum(isinstance(event, events.WorkerReady) for event in lab.heard) == 2


def test_a_worker_at_work_keeps_its_job_and_ends_after_it(lab):
    """The new one takes the place of an idle worker where there is one, so that only one model more is in memory."""
    lab.begin(lab.settings(pool={"workers": 2, "threads": 1}))
    lab.ready(2)
    busy, idle = lab.pool.children()
    lab.occupy(busy)
    lab.begin(lab.settings(model="other", pool={"workers": 2, "threads": 1}))
    lab.until(lambda: len(lab.applied) == 2)
    lab.until(lambda: idle.pid not in [child.pid for child in lab.pool.children()])

    assert sorted(child.options.model for child in lab.pool.children()) == ["base", "other"]
    assert not busy.has_ended()
    busy.drop("job", lab.now)
    lab.until(lambda: [child.options.model for child in lab.pool.children()] == ["other", "other"])


def test_where_all_are_at_work_the_new_one_comes_besides(lab):
    """Jobs are untouched by a reload; once its job is done the old worker ends and is not replaced."""
    lab.ready()
    (busy,) = lab.pool.children()
    lab.occupy(busy)
    lab.begin(lab.settings(model="other"))
    lab.until(lambda: lab.applied)
    assert [child.options.model for child in lab.pool.children()] == ["base", "other"]
    assert lab.pool.free(lab.next.engine_options()).options.model == "other"
    busy.drop("job", lab.now)
    lab.until(lambda: len(lab.pool.children()) == 1)

    assert lab.pool.next_at(lab.now) == lab.now + 5.0
    ended = [event for event in lab.heard if isinstance(event, events.WorkerEnded)]
    assert [(event.expected, event.restart_seconds) for event in ended] == [(True, None)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"script": "boot:fail"}, "does not start"),
        ({"script": "boot:kill"}, "was killed by SIGKILL"),
        ({"script": "boot:hang"}, "did not load the model 'base' within 600 s"),
    ],
)
def test_what_no_worker_can_load_is_refused_whole(lab, changes, reason):
    """The old worker stays, ready for jobs."""
    before = lab.ready()
    lab.begin(lab.settings(**changes, output={"formats": ["srt"]}))
    lab.now = 599.0
    lab.reload.tick(lab.now)
    lab.now = 0.0 if "hang" not in changes["script"] else 601.0
    lab.until(lab.refusals)

    assert lab.applied == []
    assert reason in lab.refusals()[0]
    assert lab.notices == ["RELOADING", "READY"]
    assert "is refused" in lab.reload.status
    assert [child.pid for child in lab.pool.children()] == before
    lab.until(lambda: not lab.reload.waitables())


@pytest.mark.parametrize("second", ["good", "bad"])
def test_another_reload_gives_up_the_trial(lab, second):
    """What the file said before is of no interest any more, even where what it says now is refused."""
    before = lab.ready()
    lab.begin(lab.settings(script="boot:hang"))
    trial = lab.reload.waitables()
    lab.begin(lab.settings() if second == "good" else ConfigError("test", ["nonsense: unknown key"]))
    lab.until(lambda: not lab.reload.waitables())

    assert len(trial) == 2
    assert len(lab.applied) == (second == "good")
    assert lab.notices == ["RELOADING", "RELOADING", "READY"]
    assert [child.pid for child in lab.pool.children()] == before


def test_the_root_cannot_change(lab):
    """It is locked, and read at the start."""
    lab.begin(config.validate({"root": "/elsewhere"}, source="test"))

    assert lab.applied == []
    assert lab.refusals() == ["root cannot change in a running daemon"]


def test_a_trial_that_is_given_up_leaves_no_process(lab):
    """The service stops."""
    lab.begin(lab.settings(script="boot:hang"))
    (pidfd, _) = lab.reload.waitables()
    pid = int(Path(f"/proc/self/fdinfo/{pidfd}").read_text().split("Pid:")[1].split()[0])
    lab.reload.close()

    assert not Path(f"/proc/{pid}").exists()
    assert lab.reload.waitables() == []
