"""The supervisor's loop on a disk that takes 0.3 ms for each call: every step is short, and what is left continues.

The clock is scripted, and only the disk moves it: what is measured is how much each step does, not how fast this machine is.
The largest piece that is never cut is a transition of a job, some 100 calls.
"""

from __future__ import annotations

import pytest
from support.daemon import tone
from support.options import INTAKE as OPTIONS
from support.slow_disk import SlowDisk
from support.spool import FAILURE, Spool

from whisperd.core import events
from whisperd.core.job import Progress
from whisperd.core.slices import STEP_SECONDS
from whisperd.daemon.admission import Claiming, EmittingExplainer, Room
from whisperd.daemon.cancel import Cancels
from whisperd.daemon.housekeeper import Housekeeper
from whisperd.daemon.jobs import Jobs
from whisperd.intake.inbox import Inbox
from whisperd.listeners.overview import OverviewPage
from whisperd.settings.config import Config

CALL_SECONDS = 0.0003
MANY = 300


class Loop:
    """The supervisor without workers: its parts, in its order, with the time that each step takes."""

    def __init__(self, root, **pool):
        self.spool = Spool(root)
        self.config = Config(root=root, output={"formats": ("txt",)}, pool={"queue_size": 10_000} | pool)
        self.steps = {}
        self.told = []

    def start(self, monkeypatch, options=OPTIONS):
        store, emitter = self.spool.store, events.Emitter()
        emitter.subscribe(self.told.append)
        self.page = OverviewPage(
            self.spool.layout, emitter, lambda: self.jobs.registry.snapshot(arriving=len(self.inbox))
        )
        self.page.configure(self.config)
        self.inbox = Inbox(self.spool.layout.inbox, options, EmittingExplainer(store, emitter), emitter)
        self.inbox.start()
        self.jobs = Jobs(store, emitter, max_attempts=3, retry_seconds=30.0)
        self.cancels = Cancels(self.config, store, self.jobs, None, self.inbox, emitter=emitter)
        self.claiming = Claiming(
            self.config, store, self.jobs, self.inbox, Room(self.spool.layout, emitter), emitter=emitter
        )
        self.housekeeper = Housekeeper(self.spool.layout, self.config, emitter)
        # looks through /proc, which is no disk, and takes as long as there are processes
        monkeypatch.setattr("whisperd.intake.writers.Sessions.is_connected", lambda self, uid: False)
        self.disk = SlowDisk(monkeypatch, call_seconds=CALL_SECONDS)

    def step(self, name, act, *arguments):
        before = self.disk.now
        self.disk.is_met = True
        act(*arguments)
        self.disk.is_met = False
        self.steps.setdefault(name, []).append(self.disk.now - before)

    def turn(self, pause=0.01):
        now = self.disk.now
        self.step("inbox", self.inbox.tick, now)
        self.step("cancels", self.cancels.tick, now)
        self.step("claims", self.claiming.tick, now)
        self.step("jobs", self.jobs.tick, now)
        self.step("page", self.page.tick, now)
        self.step("retention", self.housekeeper.tick, now)
        self.disk.now += pause

    def turn_until(self, condition):
        turns = 0
        while not condition():
            self.turn()
            turns += 1
            assert turns < 20_000, "it does not come to an end"

    def check(self, name, at_least_seconds):
        """No step was too long, and those of one part had enough to do for many."""
        longest = {part: max(seconds) for part, seconds in self.steps.items()}
        assert {part: seconds for part, seconds in longest.items() if seconds > STEP_SECONDS} == {}
        assert sum(self.steps[name]) > at_least_seconds


@pytest.fixture
def loop(tmp_path):
    running = Loop(tmp_path / "spool")
    yield running
    running.inbox.stop()


def uploads(loop, count=MANY, *, folders=10, content=None):
    content = content or tone(loop.spool.layout.root / "tone.wav", 0.01).read_bytes()
    for number in range(count):
        loop.spool.upload(f"{number % folders}/{number}.wav", content)


def test_many_uploads_are_found_and_claimed(loop, monkeypatch):
    """Found by a scan, looked at, taken, queued, and shown in the queue."""
    uploads(loop, 100)
    loop.start(monkeypatch)
    loop.turn_until(lambda: len(list(loop.jobs.registry.queue())) == 100)

    loop.check("claims", 20 * STEP_SECONDS)


def test_the_places_in_a_long_queue_are_shown(loop, monkeypatch):
    """The first is taken out, and all others move up."""
    uploads(loop, 100, folders=1)
    loop.start(monkeypatch)
    loop.turn_until(lambda: len(list(loop.jobs.registry.queue())) == 100)
    loop.jobs.reject(next(loop.jobs.registry.queue()).job, FAILURE, loop.disk.now)
    loop.steps.clear()
    loop.disk.now += 10.0
    *_, last = (entry.job for entry in loop.jobs.registry.queue())
    loop.turn_until(lambda: loop.spool.sidecar(last.place)["queue_position"] == 99)

    loop.check("jobs", 3 * STEP_SECONDS)


def test_many_uploads_wait_and_are_explained(loop, monkeypatch):
    """Each has a status file, and each scan looks at all of them."""
    uploads(loop, content=tone(loop.spool.layout.root / "tone.wav", 1.0).read_bytes()[:5000])
    loop.start(monkeypatch)
    loop.turn_until(lambda: len(loop.inbox) == MANY and len(list(loop.spool.layout.outbox.rglob("*.json"))) == MANY)

    loop.check("inbox", 10 * STEP_SECONDS)


def test_a_reload_looks_at_all_again(loop, monkeypatch):
    """And forgets what is ignored from now on."""
    uploads(loop, content=b"RIFF" + bytes(100))
    loop.start(monkeypatch)
    loop.turn_until(lambda: len(loop.inbox) == MANY)
    loop.step("reload", loop.inbox.configure, OPTIONS.evolve(ignore=("1*",)))
    loop.turn_until(lambda: len(loop.inbox) == sum(not str(n).startswith("1") and n % 10 != 1 for n in range(MANY)))

    loop.check("inbox", 4 * STEP_SECONDS)


def test_what_is_gone_is_forgotten(loop, monkeypatch):
    """A scan found nothing of it, and no event told."""
    uploads(loop, content=b"RIFF" + bytes(100))
    loop.start(monkeypatch)
    loop.turn_until(lambda: len(loop.inbox) == MANY)
    loop.inbox.stop()
    for path in loop.spool.layout.inbox.rglob("*.wav"):
        path.unlink()
    loop.turn_until(lambda: len(loop.inbox) == 0)

    loop.check("inbox", 3 * STEP_SECONDS)


def test_a_folder_of_things_that_are_no_uploads_is_walked(loop, monkeypatch):
    """However many there are, and however many folders."""
    for number in range(MANY):
        loop.spool.upload(f"{number}/.hidden", b"")
        loop.spool.upload(f"all/{number}.tmp", b"")
    loop.spool.upload("b.wav", b"RIFF" + bytes(100))
    loop.start(monkeypatch)
    loop.turn_until(lambda: loop.inbox.scanned_at is not None)

    loop.check("inbox", 3 * STEP_SECONDS)


def test_many_ask_for_a_cancel(loop, monkeypatch):
    """Each takes an upload and condemns it."""
    uploads(loop, 40, content=b"RIFF" + bytes(100))
    for number in range(40):
        loop.spool.upload(f"{number % 10}/{number}.wav.cancel", b"")
    loop.start(monkeypatch)
    loop.turn_until(lambda: len(loop.spool.files("failed")) == 40)

    loop.check("cancels", 20 * STEP_SECONDS)


def test_old_files_are_counted_and_removed(loop, monkeypatch):
    """By the hour, and with as little haste as anything."""
    for number in range(MANY):
        loop.spool.put(f"done/{number % 10}/{number}.wav", bytes(100))
    monkeypatch.setattr("whisperd.daemon.housekeeper.FRESH_SECONDS", -10.0)
    loop.config = loop.config.model_copy(
        update={"retention": loop.config.retention.model_copy(update={"done_max": 1000})}
    )
    loop.start(monkeypatch)
    loop.turn()
    loop.disk.now += 100.0
    loop.turn_until(lambda: any(isinstance(event, events.FilesPruned) for event in loop.told))

    loop.check("retention", 10 * STEP_SECONDS)
    assert len(loop.spool.files("done")) == 10


def test_what_an_earlier_daemon_left_is_read(loop, monkeypatch):
    """Status files for the page, and notes on files that are gone."""
    for number in range(MANY):
        loop.spool.store.status_files.explain(f"{number}.wav", 7, "still open for writing")
    job = loop.spool.take("a.wav", b"RIFF")
    loop.spool.store.show(job, progress=Progress())
    loop.start(monkeypatch)
    loop.turn_until(lambda: len(list(loop.spool.layout.outbox.glob("*.json"))) == 1)

    loop.check("page", 3 * STEP_SECONDS)
