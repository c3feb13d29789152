"""The spool is kept below its sizes: the oldest go, never what belongs to a job under way."""

import os
import time

import pytest
from support.spool import Spool

from whisperd.core import events
from whisperd.core.job import Progress
from whisperd.daemon import housekeeper
from whisperd.daemon.housekeeper import Housekeeper, prune
from whisperd.settings import config

LATER = 100_000.0  # an hour and more after everything was made


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def put(spool, path, size):
    """A file whose ctime is later than that of the one before."""
    file = spool.put(path, bytes(size))
    deadline = time.monotonic() + 5.0
    while time.time_ns() <= os.lstat(file).st_ctime_ns + 10_000_000 and time.monotonic() < deadline:
        pass
    return file


def removed(spool, room, limit):
    before = set(spool.files(room)) | {
        str(path.relative_to(spool.layout.root / room)) for path in (spool.layout.root / room).rglob("*.json")
    }
    list(prune(spool.layout, room, limit, now=time.time() + LATER))
    after = set(spool.files(room)) | {
        str(path.relative_to(spool.layout.root / room)) for path in (spool.layout.root / room).rglob("*.json")
    }
    return before - after


def test_the_oldest_go_until_the_rest_fits(spool):
    """By when they came here, not by the time that an uploader gave them; folders that become empty go too."""
    put(spool, "done/x/y/first.wav", 400)
    second = put(spool, "done/x/second.wav", 400)
    third = put(spool, "done/third.wav", 400)
    os.utime(third, (0, 0))

    assert removed(spool, "done", 800) == {"x/y/first.wav"}
    assert not (spool.layout.done / "x/y").exists()
    assert second.exists()
    assert removed(spool, "done", 800) == set()
    assert removed(spool, "done", 0) == {"x/second.wav", "third.wav"}
    assert spool.layout.done.exists()


def test_what_is_fresh_stays(spool):
    """However little is allowed."""
    put(spool, "done/a.wav", 400)
    list(prune(spool.layout, "done", 0, now=time.time()))

    assert set(spool.files("done")) == {"a.wav"}


def test_the_status_of_a_job_under_way_stays(spool):
    """Neither of one that waits nor of one that runs; those of ended jobs and their transcripts go."""
    ended = spool.finish(spool.take("ended.wav"))
    waits = spool.take("waits.wav")
    spool.store.show(waits, progress=Progress())

    assert removed(spool, "outbox", 0) == {f"ended.{kind}" for kind in ended.formats} | {"ended.wav.status.json"}
    assert spool.sidecar("waits.wav")["status"] == "pending"
    assert spool.jobs() == {waits.id}


def test_a_link_leads_nowhere(spool, tmp_path):
    """What lies outside of the room is not counted, and not removed."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_bytes(bytes(500))
    (spool.layout.done / "link").symlink_to(tmp_path / "precious")
    (spool.layout.done / "file").symlink_to(tmp_path / "precious/file")

    assert removed(spool, "done", 0) == set()
    assert (tmp_path / "precious/file").exists()


def test_many_files_take_bounded_memory(spool, monkeypatch):
    """Only so many at one go, the oldest of all; the next round goes on."""
    monkeypatch.setattr(housekeeper, "CANDIDATES_MAX", 2)
    for number in range(5):
        put(spool, f"done/{number}", 10)

    assert removed(spool, "done", 0) == {"0", "1"}
    assert removed(spool, "done", 0) == {"2", "3"}


def test_the_housekeeper_comes_once_an_hour_and_says_what_it_did(spool, monkeypatch):
    """Soon after the start for the first time; without a limit it removes nothing."""
    put(spool, "done/a.wav", 400)
    put(spool, "failed/a.wav", 400)
    monkeypatch.setattr(housekeeper, "FRESH_SECONDS", 0.0)
    emitter, told = events.Emitter(), []
    emitter.subscribe(told.append)
    settings = config.validate({"retention": {"done_max": 0}}, source="test")
    keeper = Housekeeper(spool.layout, settings, emitter)
    first = keeper.tick(1000.0)
    early = set(spool.files("done"))
    again = keeper.tick(first)

    assert early == {"a.wav"}
    assert (spool.files("done"), set(spool.files("failed"))) == ({}, {"a.wav"})
    assert told == [events.FilesPruned("done", 1, 400)]
    assert again == pytest.approx(1060.0 + 3600.0)


def test_the_housekeeper_removes_junk_unless_it_is_told_not_to(spool, monkeypatch):
    """With one line for all of it; a new configuration holds from the next round on."""
    emitter, told = events.Emitter(), []
    emitter.subscribe(told.append)
    settings = config.validate({"intake": {"remove_junk": False}}, source="test")
    keeper = Housekeeper(spool.layout, settings, emitter)
    spool.upload("alice/.DS_Store")
    later = time.time() + LATER
    monkeypatch.setattr(housekeeper.time, "time", lambda: later)
    second = keeper.tick(keeper.tick(1000.0))
    kept = set(spool.files("inbox"))
    keeper.configure(config.validate({}, source="test"))
    keeper.tick(second)

    assert (kept, spool.files("inbox")) == ({"alice/.DS_Store"}, {})
    assert told == [events.JunkRemoved(1, "alice/.DS_Store")]
