"""What chats and other services are told through Apprise; the receiver is a real HTTP server."""

import json
import os
import subprocess

import pytest
from support.receiver import Receiver

from whisperd.core.errors import ConfigError
from whisperd.listeners.notifications import apprise
from whisperd.settings import config

DOCUMENT = {
    "id": "1-a",
    "name": "@everyone <!channel>.wav",
    "status": "failed",
    "error": {"message": "no speech", "hint": "look at it"},
    "outputs": {},
    "original": "failed/x.wav",
}


def channels(*addresses, **changes):
    settings = config.validate({"notices": {"apprise": list(addresses), **changes}}, source="test").notices
    return apprise.channels(settings)


def send(address, document=None, **environment):
    """Run the channel's command as the daemon does; returns exit status and output."""
    (channel,) = channels(address).values()
    done = subprocess.run(
        channel.command,
        input=json.dumps(document or DOCUMENT).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **channel.environment, **environment},
        check=False,
    )
    return done.returncode, done.stdout.decode()


def address_of(receiver):
    return f"json://me:secret-word@127.0.0.1:{receiver.port}/token-123"


def test_a_service_is_told_in_a_few_lines():
    """Reason and remedy of a failure, and no name that calls everybody."""
    with Receiver() as receiver:
        status, output = send(address_of(receiver))
        ((_, body),) = receiver.requests
    told = json.loads(body)

    assert (status, output.strip()) == (0, "")
    assert told["title"] == "@\u200beveryone <\u200b!channel>.wav: failed, no speech"
    assert "remedy: look at it" in told["message"]
    assert told["type"] == "failure"


def test_a_service_that_refuses_is_tried_again_and_no_token_is_logged():
    """What Apprise says of it is, without any part of the address."""
    with Receiver(500) as receiver:
        status, output = send(address_of(receiver))

    assert (status, "500" in output) == (os.EX_TEMPFAIL, True)
    assert apprise.hidden("at secret-word, to%20ken and to ken", ["json://x:secret-word@h/to%20ken"]) == (
        "at ****, **** and ****"
    )


def test_a_redirect_is_not_followed():
    """Only the hosts that the configuration names are told."""
    with Receiver() as elsewhere, Receiver(307, location=elsewhere.url) as receiver:
        status, _ = send(address_of(receiver))

    assert (status, len(receiver.requests), elsewhere.requests) == (os.EX_TEMPFAIL, 1, [])


def test_addresses_with_tokens_stand_in_a_file_or_credential(tmp_path):
    """All of them are told; a file that is missing is tried again, and named."""
    with Receiver() as one, Receiver() as two:
        (tmp_path / "chats").write_text(f"# ours\n{address_of(one)}\n\n{address_of(two)}\n")
        by_path = send(str(tmp_path / "chats"))
        by_name = send("chats", CREDENTIALS_DIRECTORY=str(tmp_path))
        told = len(one.requests), len(two.requests)
    missing, why = send(str(tmp_path / "nowhere"))

    assert (by_path[0], by_name[0], told) == (0, 0, (2, 2))
    assert (missing, f"{tmp_path / 'nowhere'} cannot be read" in why) == (os.EX_TEMPFAIL, True)


def test_an_address_that_apprise_does_not_understand_is_given_up():
    """It stays wrong; `whisperd check` says so before."""
    status, output = send("nosuch://secret-word")

    assert (status, "Apprise does not understand" in output) == (os.EX_UNAVAILABLE, True)
    assert "secret-word" not in output


def test_no_token_is_in_a_name_or_an_argument():
    """Names go to the log and to the disk, and everybody can read the arguments of a process."""
    found = channels("ntfy://secret-word", "slack+x://secret-word", "/etc/secret-word")

    assert [name[: name.rindex("-")] for name in found] == ["apprise-ntfy", "apprise-slackx", "apprise-file"]
    assert "secret-word" not in str(found)
    assert [*channels("/etc/secret-word")] == [[*found][2]]


@pytest.mark.parametrize("address", ["", "a b://c", "ntfy://a\nb", "://x", "-x"])
def test_what_is_no_address_is_refused(address):
    """At start, with its key."""
    with pytest.raises(ConfigError) as caught:
        channels(address)

    assert [problem.split(": ")[0] for problem in caught.value.problems] == ["notices.apprise.0"]


def test_without_the_package_the_key_is_refused(monkeypatch):
    """With what installs it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(ConfigError, match=r"pip install 'whisperd\[apprise\]'"):
        channels("ntfy://topic")
