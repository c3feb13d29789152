"""Which channels a configuration makes, and which kind each is."""

import sys

import pytest

from whisperd.core.errors import ConfigError
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
