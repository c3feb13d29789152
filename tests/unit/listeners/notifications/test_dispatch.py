"""Which channels there are, and what is delivered, when and how often; the commands are real, the clock is not."""

import errno
import json
import os
import sys
import time

import pytest
from support.spool import FAILURE, Spool, result

from whisperd.core import events
from whisperd.core.errors import ConfigError
from whisperd.listeners.notifications import dispatch
from whisperd.listeners.notifications.channel import Channel
from whisperd.listeners.notifications.dispatch import (
    RESTORE_SECONDS,
    RETRY_SECONDS_MAX,
    Dispatcher,
    channels,
    kind_of,
)
from whisperd.settings import config
from whisperd.spool.durable import Folder

AGAIN = ("/bin/sh", "-c", "exit 75")


def options(**changes):
    return config.validate({"notices": changes}, source="test").notices


class Told:
    """A dispatcher over a spool, with all events that it emits."""

    def __init__(self, root, **settings):
        self.spool = Spool(root)
        self.events = []
        self.now = 1000.0
        self.restart(**settings)

    def restart(self, **settings):
        self.emitter = events.Emitter()
        self.emitter.subscribe(self.events.append)
        self.dispatcher = Dispatcher(self.spool.layout, options(**settings), self.emitter)
        self.spool.announce = self.dispatcher.announce
        self.spool.restart()
        self.dispatcher.restore()

    def finish(self, name):
        job = self.spool.finish(self.spool.take(name))
        self.emitter.emit(events.JobFinished(job, result()))
        return job

    def fail(self, name):
        job = self.spool.store.fail(self.spool.take(name), FAILURE)
        self.emitter.emit(events.JobFailed(job, FAILURE))

    def files(self):
        folder = self.spool.layout.work / ".notices"
        return sorted(os.listdir(folder)) if folder.exists() else []

    def settle(self, wait_until):
        """Until nothing runs any more, at this instant of the clock."""

        def is_still():
            self.dispatcher.tick(self.now)
            return not self.dispatcher.is_running()

        wait_until(is_still)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


def test_without_anybody_to_tell_nothing_is_written(root):
    """Not even the directory."""
    told = Told(root)
    told.finish("a.wav")

    assert told.files() == []
    assert not (root / ".work/.notices").exists()


def test_each_channel_is_told_of_what_it_is_about(root):
    """One file each; hooks by their kind of end, mail of failures unless it is told otherwise."""
    told = Told(root, on_completed=["/bin/true"], on_failed=["/bin/true"], mail_to=["root"])
    job = told.finish("a.wav")
    told.fail("b.wav")

    assert [name.split(".", 1)[1] for name in told.files()] == ["on_completed.json", "mail.json", "on_failed.json"]
    assert told.files()[0].startswith(job.id)


def test_a_job_that_has_not_reached_its_end_is_not_told(root, wait_until):
    """Its notification is written before the original leaves `.work`: until then the end may still change."""
    told = Told(root, on_completed=["/bin/true"])
    job = told.spool.take("a.wav")
    told.dispatcher.announce(job, {"status": "completed", "name": "a.wav"}, result())
    told.restart(on_completed=["/bin/true"])
    told.settle(wait_until)

    assert told.events == []
    assert len(told.files()) == 1


def test_a_job_that_ends_otherwise_than_announced_is_told_as_it_ended(root, wait_until):
    """An announcement from before a crash does not survive the other end."""
    told = Told(root, on_completed=["/bin/true"], on_failed=["/bin/true"])
    job = told.spool.take("a.wav")
    told.dispatcher.announce(job, {"status": "completed", "name": "a.wav"}, result())
    told.emitter.emit(events.JobFailed(told.spool.store.fail(job, FAILURE), FAILURE))
    told.settle(wait_until)

    (event,) = told.events[1:]
    assert isinstance(event, events.NotificationDelivered)
    assert event.channel == "on_failed"
    assert told.files() == []


def test_one_at_a_time_in_each_channel_and_channels_side_by_side(root, wait_until):
    """A hook needs no lock, and a slow one keeps no webhook waiting."""
    told = Told(root, on_completed=["/bin/sleep", "100"], on_failed=["/bin/true"])
    told.finish("a.wav")
    told.finish("b.wav")
    told.dispatcher.tick(told.now)
    sleeping = len(told.dispatcher.waitables())
    told.fail("c.wav")

    def is_told():
        told.dispatcher.tick(told.now)
        return any(isinstance(event, events.NotificationDelivered) for event in told.events)

    wait_until(is_told)
    assert sleeping == 1
    assert len(told.dispatcher) == 2
    told.dispatcher.close()
    assert not told.dispatcher.is_running()
    assert len(told.files()) == 2


def test_pauses_double_up_to_a_bound_and_end_in_giving_up(root, wait_until, monkeypatch):
    """Until `keep_seconds` are over; then the notification is dropped, and an event says so."""
    told = Told(root, on_completed=AGAIN, retry_seconds=10.0, keep_seconds=100.0)
    told.finish("a.wav")
    for _ in range(12):
        told.settle(wait_until)
        told.now = told.dispatcher.next_at(told.now)
    pauses = [event.delay_seconds for event in told.events if isinstance(event, events.NotificationDelayed)]
    later = time.time() + 101.0
    monkeypatch.setattr("whisperd.listeners.notifications.dispatch.time.time", lambda: later)
    told.settle(wait_until)

    for number, pause in enumerate(pauses):
        assert pause == pytest.approx(min(RETRY_SECONDS_MAX, 10.0 * 2**number), rel=0.2)
    assert isinstance(told.events[-1], events.NotificationDropped)
    assert "given up after 13 tries" in told.events[-1].reason
    assert (told.files(), len(told.dispatcher)) == ([], 0)


def test_a_command_that_cannot_be_run_is_one_warning_with_what_to_do(root, wait_until):
    """As any failure but exit status 75: said once, and that is the end of it."""
    told = Told(root, on_completed=["/nowhere/hook"])
    told.finish("a.wav")
    told.settle(wait_until)

    assert isinstance(told.events[-1], events.NotificationDropped)
    assert told.events[-1].reason == (
        "cannot start /nowhere/hook: No such file or directory; "
        "put it there or change notices.on_completed; `whisperd check` shows whether it can be run"
    )
    assert told.files() == []


def test_a_command_waits_for_a_machine_that_is_out_of_processes(root, wait_until, monkeypatch):
    """The command is there: it is tried again."""

    def refuse(*_, **__):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("subprocess.Popen", refuse)
    told = Told(root, on_completed=["/bin/true"])
    told.finish("a.wav")
    told.settle(wait_until)

    assert isinstance(told.events[-1], events.NotificationDelayed)
    assert len(told.files()) == 1


def test_a_file_in_place_of_the_folder_holds_endings_back_and_is_named_once(root, wait_until):
    """The daemon goes on; once the file is moved away, what an earlier daemon left is delivered."""
    told = Told(root, on_completed=["/bin/true"])
    told.finish("a.wav")
    folder = root / ".work/.notices"
    folder.rename(root / "kept")
    folder.touch()
    told.events.clear()
    told.restart(on_completed=["/bin/true"])
    for _ in range(3):
        told.settle(wait_until)
        told.now += RESTORE_SECONDS
    reason = "this is not a folder; move it away, and notifications continue"
    assert told.events == [events.NotificationsUnreadable(str(folder), reason)]
    with pytest.raises(NotADirectoryError, match="move it away"):
        told.finish("b.wav")

    folder.unlink()
    (root / "kept").rename(folder)
    told.settle(wait_until)

    assert isinstance(told.events[-1], events.NotificationDelivered)
    assert told.files() == []


@pytest.mark.parametrize("kind", ["file", "dangling symlink"])
def test_without_anybody_to_tell_the_place_of_the_folder_does_not_matter(root, kind):
    """Nothing is to be written there."""
    told = Told(root)
    folder = root / ".work/.notices"
    folder.touch() if kind == "file" else folder.symlink_to("nowhere")

    assert told.finish("a.wav")


@pytest.mark.parametrize(
    "change",
    [
        {"paths": 5},
        {"words": {"A": 5}},
        {"at": "now"},
        {"words": {"A": "\0"}},
        {"words": {"A": "\ud800"}},
        {"name": None},
    ],
)
def test_a_notification_of_the_wrong_types_does_not_stop_the_others(root, wait_until, change):
    """It is JSON, and still not what was written."""
    told = Told(root, on_completed=["/bin/true"])
    told.finish("a.wav")
    told.finish("b.wav")
    damaged = root / ".work/.notices" / told.files()[0]
    damaged.write_text(json.dumps(json.loads(damaged.read_text()) | change))
    told.settle(wait_until)

    assert [type(event).__name__ for event in told.events[2:]] == ["NotificationDropped", "NotificationDelivered"]
    assert told.files() == []


def test_a_notification_that_the_disk_cannot_read_now_is_tried_again(root, wait_until, monkeypatch):
    """Neither dropped nor the end of the daemon."""
    told = Told(root, on_completed=["/bin/true"])
    told.finish("a.wav")

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Folder, "read", refuse)
    told.settle(wait_until)

    assert told.events[-1].reason == "cannot read its file: Input/output error"
    assert len(told.files()) == 1


def test_a_notification_that_is_damaged_is_dropped_with_a_word(root, wait_until):
    """It must not be in the way of the others."""
    told = Told(root, on_completed=["/bin/true"])
    told.finish("a.wav")
    told.finish("b.wav")
    (root / ".work/.notices" / told.files()[0]).write_bytes(b'{"name": ')
    told.settle(wait_until)

    assert [type(event).__name__ for event in told.events[2:]] == ["NotificationDropped", "NotificationDelivered"]
    assert told.files() == []


def test_each_channel_has_a_name_that_tells_its_kind():
    """Also when it is not configured any more, and the name is all there is."""
    webhook = {"url": "https://host/", "secret": "cred"}
    found = channels(
        options(on_completed=["/a"], on_failed=["/b"], webhooks={"x-y": webhook, "z": webhook}, mail_to=["root"])
    )

    assert list(found) == ["on_completed", "on_failed", "webhook-x-y", "webhook-z", "mail-transcript", "mail"]
    assert [kind_of(name) for name in found] == [channel.kind for channel in found.values()]


def test_without_a_setting_only_recordings_can_ask_for_something():
    """As by default."""
    (channel,) = channels(options()).values()

    assert not channel.is_interested("completed", {})
    assert channel.is_interested("completed", {"WHISPERD_MAIL_TRANSCRIPT_TO": "a@example.org"})
    assert not channel.is_interested("failed", {"WHISPERD_MAIL_TRANSCRIPT_TO": "a@example.org"})


def test_a_new_kind_is_one_module_and_one_registration(monkeypatch, tmp_path, wait_until):
    """Nothing else knows the kinds: what it names is delivered, and counted and logged under its name."""
    chat = Channel("chat", ("completed",), ("/bin/sh", "-c", "echo sent; cat >&2"), 10.0)
    monkeypatch.setattr(dispatch, "KINDS", (*dispatch.KINDS, lambda settings: {"chat-team": chat}))
    spool, emitter, heard = Spool(tmp_path / "spool"), events.Emitter(), []
    emitter.subscribe(heard.append)
    dispatcher = Dispatcher(spool.layout, options(), emitter)
    job = spool.take("a.wav")
    dispatcher.announce(job, {"name": "a.wav", "status": "completed"}, result())
    emitter.emit(events.JobFinished(job, result()))

    def is_delivered():
        dispatcher.tick(0.0)
        return len(heard) == 2

    wait_until(is_delivered)
    assert (heard[1].kind, heard[1].channel, heard[1].name) == ("chat", "chat-team", "a.wav")
    assert heard[1].output.startswith("sent | ")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"webhooks": {"x": {"url": "ftp://host/", "secret": "/s"}}}, "notices.webhooks.x.url"),
        ({"webhooks": {"x": {"url": "https://me:word@host/", "secret": "/s"}}}, "notices.webhooks.x.url"),
        ({"webhooks": {"x": {"url": "https://host/\r\nx: y", "secret": "/s"}}}, "notices.webhooks.x.url"),
        ({"webhooks": {"x": {"url": "https://host/"}}}, "notices.webhooks.x.secret"),
        ({"webhooks": {"../x": {"url": "https://host/", "secret": "/s"}}}, "notices.webhooks.../x.[key]"),
        ({"on_failed": ["notify-send", "x"]}, "notices.on_failed"),
        ({"on_failed": "notify-send x"}, "notices.on_failed"),
        ({"mail_to": ["a@b\nBcc: c@d"]}, "notices.mail_to.0"),
        ({"mail_to": ["-OQueueDirectory=/tmp"]}, "notices.mail_to.0"),
    ],
)
def test_what_could_not_be_told_is_refused(settings, key):
    """At start, with its key, not at the end of the first job."""
    with pytest.raises(ConfigError) as caught:
        options(**settings)

    assert [problem.split(": ")[0] for problem in caught.value.problems] == [key]


def test_a_sender_is_the_very_program_that_runs():
    """Not one that is found on PATH or in the current directory."""
    found = channels(options(webhooks={"x": {"url": "https://host/", "secret": "cred"}}, mail_to=["root"]))

    assert all(channel.command[:3] == (sys.executable, "-P", "-m") for channel in found.values())
