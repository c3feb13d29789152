"""Which waiting job is given to which worker, and what is done where no worker has its model."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.spool import FAILURE, Spool

from whisperd.core import events
from whisperd.daemon.assignment import OVERTAKEN_SECONDS, Overtake, Prepare, Reject, Renew, Start, next_step
from whisperd.daemon.jobs import Jobs
from whisperd.settings import config


class Workers:
    """What a pool says of its workers; one for each model, with or without room."""

    def __init__(self, **room):
        self.room = room
        self.broken = {}
        self.is_last_slot = False
        self.coming, self.spare, self.used_up = set(), set(), set()

    def free(self, engine, *, alone, fresh, avoid, is_long):
        if is_long and self.is_last_slot:
            return None
        return engine.model if self.room.get(engine.model) and not (fresh and engine.model in self.used_up) else None

    def is_coming(self, engine):
        return engine.model in self.coming

    def replaceable(self, engine):
        return next(iter(self.spare - {engine.model}), None)

    def used(self, engine, avoid):
        return engine.model if engine.model in self.used_up else None


@pytest.fixture
def desk(tmp_path):
    """Three jobs that wait: the first for the model small, the others for base."""
    spool = Spool(tmp_path)
    settings = config.validate(
        {"root": str(tmp_path), "engine": "scripted", "profiles": {"a": {"model": "small"}}}, source="test"
    )
    jobs = Jobs(spool.store, events.Emitter(), max_attempts=3, retry_seconds=1.0)
    for name in ("a", "b", "c"):
        jobs.receive(spool.take(name))
    return SimpleNamespace(registry=jobs.registry, settings=settings, jobs=jobs)


def step(desk, workers, now=0.0):
    before = [(entry.job.name, entry.state, entry.overtaken_since) for entry in desk.registry.queue()]
    found = next_step(desk.registry, workers, desk.settings, now)
    assert [(entry.job.name, entry.state, entry.overtaken_since) for entry in desk.registry.queue()] == before
    return found


def test_the_first_job_goes_to_a_worker_with_its_model(desk):
    """In the order of the queue."""
    found = step(desk, Workers(small=True, base=True))

    assert isinstance(found, Start)
    assert (found.child, found.job.name, found.spec.model) == ("small", "a", "small")


def test_others_go_before_a_job_whose_model_no_worker_has_but_not_for_ever(desk):
    """Since when they do is remembered; after a minute it gets the first worker that is idle, and until then nobody starts."""
    workers = Workers(base=True)
    found = step(desk, workers)
    assert isinstance(found, Overtake)
    found.entry.overtaken_since = 0.0
    assert step(desk, workers).job.name == "b"

    assert step(desk, workers, OVERTAKEN_SECONDS) is None
    workers.spare.add("base")
    assert step(desk, workers, OVERTAKEN_SECONDS) == Prepare(desk.settings.engine_options("small"))
    workers.coming.add("small")
    assert step(desk, workers, OVERTAKEN_SECONDS).job.name == "b"


def test_a_job_whose_model_does_not_load_fails(desk):
    """And nobody waits behind it."""
    workers = Workers(base=True)
    workers.broken[desk.settings.engine_options("small")] = FAILURE
    found = step(desk, workers)

    assert (type(found), found.job.name, found.failure) == (Reject, "a", FAILURE)


def test_a_job_that_needs_a_fresh_worker_has_a_used_one_replaced(desk):
    """An engine failed with it alone."""
    next(desk.registry.queue()).needs_fresh_worker = True
    workers = Workers(small=True)
    workers.used_up.add("small")

    assert step(desk, workers) == Renew(desk.settings.engine_options("small"))


@pytest.fixture
def mixed(tmp_path):
    """Two long recordings that wait before a short one."""
    spool = Spool(tmp_path)
    settings = config.validate({"root": str(tmp_path), "engine": "scripted"}, source="test")
    jobs = Jobs(spool.store, events.Emitter(), max_attempts=3, retry_seconds=1.0)
    for name, size in (("a.mp3", 40 << 20), ("b.wav", 400 << 20), ("c.mp4", 40 << 20)):
        job = spool.take(name)
        jobs.receive(job.evolve(signature=replace(job.signature, size=size)))
    return SimpleNamespace(registry=jobs.registry, settings=settings, jobs=jobs)


def test_a_short_recording_goes_before_long_ones_where_one_slot_is_left(mixed):
    """Its length is not known yet, so its size and kind must tell: of 40 MB, an MP3 is long and a video is not."""
    workers = Workers(base=True)
    assert step(mixed, workers).job.name == "a.mp3"
    workers.is_last_slot = True
    assert step(mixed, workers).job.name == "c.mp4"
    mixed.jobs.start(next(each.job for each in mixed.registry.queue() if each.job.name == "c.mp4"), 1, 0.0)

    assert step(mixed, workers) is None
    workers.is_last_slot = False
    assert step(mixed, workers).job.name == "a.mp3"
