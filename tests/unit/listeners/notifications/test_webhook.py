"""The signed request about the end of a job, and its secret."""

import base64
import socket
import subprocess
import sys
import threading

import pytest

from whisperd.listeners.notifications import webhook
from whisperd.settings import config

SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "whsec_",
        "whsec_###",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        SECRET.removeprefix("whsec_"),
    ],
)
def test_a_weak_or_misspelt_secret_is_refused(tmp_path, text):
    """Rather than signing with what the receiver does not know."""
    (tmp_path / "secret").write_text(text)

    with pytest.raises(webhook.SecretError, match="24 to 64"):
        webhook.read_secret(tmp_path / "secret")


def test_a_secret_may_be_a_credential_of_the_service(tmp_path, monkeypatch):
    """systemd.exec(5), LoadCredential=: it comes in a directory that only the service sees."""
    (tmp_path / "whisperd-webhook").write_text(SECRET)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    assert webhook.read_secret(webhook.Path("whisperd-webhook")) == bytes(32)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(webhook.SecretError, match="LoadCredential="):
        webhook.read_secret(webhook.Path("whisperd-webhook"))


def test_no_token_of_a_web_address_is_in_an_argument():
    """Everybody on the machine can read the arguments of a process."""
    values = {"notices": {"webhooks": {"chat": {"url": "https://example.org/bot-token", "secret": "bot-token"}}}}
    found = webhook.channels(config.validate(values, source="test").notices)

    assert "bot-token" not in str(found)


def test_a_secret_that_is_missing_is_not_named_by_what_may_be_a_password(monkeypatch, tmp_path):
    """Where a credential is named, somebody may have written the secret itself; the reason goes to the log."""
    for directory in ("", str(tmp_path)):
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", directory)
        with pytest.raises(webhook.SecretError) as caught:
            webhook.read_secret(webhook.Path("bot-token"))
        assert "bot-token" not in str(caught.value)


def test_a_receiver_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch):
    """Each step has its time."""
    monkeypatch.setattr(webhook, "REQUEST_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        webhook.post(f"http://127.0.0.1:{silent.getsockname()[1]}/", b"{}", {})


def test_an_answer_that_is_not_http_is_an_error_like_no_answer():
    """Another try may help."""
    with socket.create_server(("127.0.0.1", 0)) as strange:

        def answer():
            connection, _ = strange.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail.example.org ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ConnectionError, match="220"):
            webhook.post(f"http://127.0.0.1:{strange.getsockname()[1]}/", b"{}", {})
        thread.join()


def test_the_supervisor_does_not_load_the_client():
    """It only asks for the names of the channels; TLS would cost it several MB."""
    program = "import sys, whisperd.listeners.notifications.dispatch; print({'ssl', 'http.client'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"
