"""Which channels a configuration makes, and which kind each is."""

import sys

import pytest
from support.spool import Spool, result

from whisperd.core import events
from whisperd.core.errors import ConfigError
from whisperd.listeners.notifications import kinds
from whisperd.listeners.notifications.channel import Channel
from whisperd.listeners.notifications.dispatch import Dispatcher
from whisperd.listeners.notifications.kinds import channels, kind_of
from whisperd.settings import config


def options(**changes):
    return config.validate({"notices": changes}, source="test").notices


def test_each_channel_has_a_name_that_tells_its_kind():
    """Also when it is not configured any more, and the name is all there is."""
    webhook = {"url": "https://host/", "secret": "cred"}
    found = channels(
        options(on_completed=["/a"], on_failed=["/b"], webhooks={"x-y": webhook, "z": webhook}, mail_to=["root"])
    )

    assert list(found) == ["on_completed", "on_failed", "webhook-x-y", "webhook-z", "mail"]
    assert [kind_of(name) for name in found] == [channel.kind for channel in found.values()]


def test_without_a_setting_there_is_no_channel():
    """As by default."""
    assert channels(options()) == {}


def test_a_new_kind_is_one_module_and_one_registration(monkeypatch, tmp_path, wait_until):
    """Nothing else knows the kinds: what it names is delivered, and counted and logged under its name."""
    chat = Channel("chat", ("completed",), ("/bin/sh", "-c", "echo sent; cat >&2"), 10.0)
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, lambda settings: {"chat-team": chat}))
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
