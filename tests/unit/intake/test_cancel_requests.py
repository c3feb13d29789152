"""Files that ask for something, over a time that the test lets pass."""

from __future__ import annotations

import os

import pytest
from support.daemon import tone
from support.options import INTAKE as OPTIONS
from support.spool import Spool

from whisperd.core import events
from whisperd.daemon.cancel import Cancels
from whisperd.daemon.jobs import Jobs
from whisperd.intake.cancel_requests import KEPT_SECONDS, target
from whisperd.intake.inbox import Inbox
from whisperd.settings.config import Config
from whisperd.spool.durable import Folder


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("a.mp3.cancel", "a.mp3"), ("b/a.mp3.cancel", "b/a.mp3"), ("b/.cancel", None), ("a.mp3", None), ("cancel", None)],
)
def test_what_a_name_asks_for(name, wanted):
    """The name of the upload, with one suffix."""
    assert target(name) == wanted


class Play:
    """The inbox, the jobs and the requests of a daemon without workers."""

    def __init__(self, root):
        self.spool = Spool(root)
        emitter = events.Emitter()
        self.config = Config(root=root, output={"formats": ("txt",)})
        self.inbox = Inbox(self.spool.layout.inbox, OPTIONS, self.spool.store.status_files, emitter)
        self.inbox.start()
        self.jobs = Jobs(self.spool.store, emitter, max_attempts=3, retry_seconds=30.0)
        self.cancels = Cancels(self.config, self.spool.store, self.jobs, None, self.inbox, emitter=emitter)
        self.now = 1000.0

    def pass_time(self, seconds):
        for _ in range(int(seconds / 0.5) + 1):
            self.inbox.tick(self.now)
            self.cancels.tick(self.now)
            self.jobs.tick(self.now)
            self.now += 0.5

    def names(self, room="inbox"):
        return sorted(os.listdir(self.spool.layout.root / room))


@pytest.fixture
def play(tmp_path):
    playing = Play(tmp_path / "spool")
    yield playing
    playing.inbox.stop()


def test_a_request_for_nothing_is_removed_after_a_minute(play):
    """It is no threat to an upload of that name a day later; its note goes with it."""
    play.spool.upload("a.wav.cancel", b"")
    play.pass_time(KEPT_SECONDS - 5.0)
    assert play.names() == ["a.wav.cancel"]
    assert play.names("outbox") == ["a.wav.cancel.status.json"]
    play.pass_time(10.0)

    assert play.names() == play.names("outbox") == []


def test_one_request_ends_all_that_go_by_the_name(play):
    """Two claimed jobs and an upload that waits; whoever is called otherwise is not touched."""
    for content in (b"1", b"2"):
        play.jobs.receive(play.spool.take("a.mp3", content))
    play.jobs.receive(play.spool.take("b/a.mp3"))
    tone(play.spool.layout.inbox / "a.mp3")
    play.spool.upload("a.mp3.cancel", b"wrong file\n")
    play.pass_time(1.0)

    assert play.names("failed") == ["a-2.mp3", "a-3.mp3", "a.mp3"]
    assert [entry.job.name for entry in play.jobs.registry.queue()] == ["b/a.mp3"]
    assert play.names() == ["b"]


def test_a_numbered_name_ends_that_one_alone(play):
    """The name of the status file is the exact one."""
    for content in (b"1", b"2"):
        play.jobs.receive(play.spool.take("a.mp3", content))
    play.spool.upload("a-2.mp3.cancel", b"")
    play.pass_time(1.0)

    assert play.names("failed") == ["a-2.mp3"]
    assert [entry.job.place for entry in play.jobs.registry.queue()] == ["a.mp3"]


def test_a_request_that_cannot_be_written_down_is_obeyed_later(play, monkeypatch):
    """On a full disk nothing has happened; once there is room, it happens."""

    def full(*arguments):
        raise OSError(28, "No space left on device")

    play.jobs.receive(play.spool.take("a.mp3"))
    play.spool.upload("a.mp3.cancel", b"")
    with monkeypatch.context() as patch:
        patch.setattr(play.spool.store, "condemn", full)
        play.pass_time(5.0)
        assert len(list(play.jobs.registry.queue())) == 1
        assert "No space left" in play.spool.sidecar("a.mp3.cancel")["reason"]
    play.pass_time(1.0)

    assert play.names("failed") == ["a.mp3"]
    assert play.names() == []


def test_a_request_that_cannot_be_removed_is_obeyed_all_the_same(play, monkeypatch):
    """It says that it stays, since it would end the next upload of that name too."""

    def forbidden(*arguments):
        raise OSError(13, "Permission denied")

    monkeypatch.setattr("whisperd.intake.cancel_requests.remove", forbidden)
    play.jobs.receive(play.spool.take("a.mp3"))
    play.spool.upload("a.mp3.cancel", b"")
    play.pass_time(3.0)

    assert play.names("failed") == ["a.mp3"]
    with Folder(play.spool.layout.outbox) as outbox:
        assert outbox.exists("a.mp3.cancel.status.json")
