"""The mail about the end of a job: what it says, and how it leaves through a real mail server."""

import json
import os
import socket
import subprocess
import sys
from email import message_from_bytes, policy

import pytest
import trustme
from support.mail_server import MailServer

from whisperd.core.errors import ConfigError
from whisperd.listeners.notifications import mail
from whisperd.settings import config

DOCUMENT = {
    "id": "1-a",
    "name": "Besprechung_für_alle.wav",
    "status": "failed",
    "error": {"message": "keine Töne", "hint": "look"},
    "outputs": {},
    "original": "failed/x.wav",
}
MAIL = {"mail_to": ["ops@example.org"], "mail_from": "whisperd@example.org", "smtp_host": "localhost"}


def options(**changes):
    return config.validate({"notices": changes}, source="test").notices


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Who vouches for the server, and the file that says so."""
    found = trustme.CA()
    path = tmp_path_factory.mktemp("authority") / "authority.pem"
    found.cert_pem.write_to_path(str(path))
    return found, path


def send(port, environment=(), **changes):
    """Run the channel's command as the daemon does; returns exit status and output."""
    channel = mail.channels(options(**MAIL | {"smtp_port": port} | changes))["mail"]
    done = subprocess.run(
        channel.command,
        input=json.dumps(DOCUMENT).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **dict(environment)},
        check=False,
    )
    return done.returncode, done.stdout.decode()


def test_no_line_break_gets_into_a_header():
    """Whatever a status file says."""
    error = {"message": "bad\r\nBcc: eve@example.org", "hint": ""}
    document = {"id": "1", "name": "a\nb", "status": "failed", "error": error, "outputs": {}, "original": "x"}
    message = mail.compose(document, "", ["root"])

    assert message["Bcc"] is None
    assert message["Subject"] == "a b: failed, bad  Bcc: eve@example.org"
    assert json.dumps(message.keys()).count("To") == 1


def test_every_byte_of_a_mail_passes_a_server_that_knows_only_ascii():
    """Text in other letters is encoded, and no line is longer than RFC 5322 allows."""
    message = mail.compose(DOCUMENT | {"original": "failed/" + "ö" * 3000}, "a@example.org", ["b@example.org"])
    content = message.as_bytes()

    assert content.isascii()
    assert max(map(len, content.splitlines())) <= 998
    assert "ö" * 3000 in message.get_content()


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_goes_to_a_server_encrypted_and_with_a_login(authority, tmp_path, security):
    """The password is in a systemd credential; sender, recipients and text arrive."""
    issuer, trusted = authority
    (tmp_path / "password").write_text("p wörd\n")
    environment = {"SSL_CERT_FILE": str(trusted), "CREDENTIALS_DIRECTORY": str(tmp_path)}
    settings = {"smtp_security": security, "smtp_user": "me", "smtp_password": "password"}
    certificate = issuer.issue_cert("localhost")
    with MailServer(certificate=certificate, security=security, login=("me", "p wörd")) as server:
        status, output = send(server.port, environment, **settings, mail_to=["a@example.org", "b@example.org"])
        (tmp_path / "password").write_text("wrong")
        wrong, why = send(server.port, environment, **settings)
        ((sender, recipients, found),) = server.mails
        logins = set(server.logins)

    assert (status, output) == (0, "localhost took it\n")
    assert (sender, recipients) == ("whisperd@example.org", ["a@example.org", "b@example.org"])
    assert logins == {("me", "p wörd"), ("me", "wrong")}
    assert found["Subject"] == "Besprechung_für_alle.wav: failed, keine Töne"
    assert "remedy: look" in found.get_content()
    assert (wrong, "535" in why, "wrong" in why) == (os.EX_TEMPFAIL, True, False)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_server_that_nobody_vouches_for_gets_nothing(tmp_path, security):
    """Neither the password nor the mail; it is tried again, since the operator can correct it."""
    (tmp_path / "password").write_text("secret")
    settings = {"smtp_security": security, "smtp_user": "me", "smtp_password": str(tmp_path / "password")}
    certificate = trustme.CA().issue_cert("localhost")
    with MailServer(certificate=certificate, security=security, login=("me", "secret")) as server:
        status, output = send(server.port, **settings)

        assert (status, server.mails) == (os.EX_TEMPFAIL, [])
        assert "certificate verify failed" in output


def test_a_server_without_the_encryption_that_is_asked_for_gets_nothing():
    """Whoever sits in between cannot talk it away."""
    with MailServer() as server:
        status, output = send(server.port)

        assert (status, server.mails) == (os.EX_TEMPFAIL, [])
        assert "STARTTLS" in output


@pytest.mark.parametrize(
    ("answers", "status", "taken"),
    [
        pytest.param({"refusals": {"a@example.org": ["450 later"]}}, os.EX_TEMPFAIL, 1, id="one for now"),
        pytest.param({"refusals": {"a@example.org": ["550 unknown"]}}, os.EX_OK, 1, id="one for good"),
        pytest.param(
            {"refusals": {"a@example.org": ["550 unknown"], "b@example.org": ["550 unknown"]}},
            os.EX_UNAVAILABLE,
            0,
            id="all for good",
        ),
        pytest.param(
            {"refusals": {"a@example.org": ["550 unknown"], "b@example.org": ["450 later"]}},
            os.EX_TEMPFAIL,
            0,
            id="one for now, the other for good",
        ),
        pytest.param({"data": ["552 too large"]}, os.EX_UNAVAILABLE, 0, id="the mail for good"),
        pytest.param({"data": ["451 busy"]}, os.EX_TEMPFAIL, 0, id="the mail for now"),
    ],
)
def test_what_a_server_refuses_for_now_is_tried_again(answers, status, taken):
    """As RFC 5321 distinguishes it; the answer of the server is logged."""
    with MailServer(**answers) as server:
        found, output = send(server.port, smtp_security="none", mail_to=["a@example.org", "b@example.org"])

        assert (found, len(server.mails)) == (status, taken)
        assert any(answer in output for answer in ("450 later", "550 unknown", "552 too large", "451 busy"))


def test_a_server_that_is_down_and_a_password_that_is_missing_are_tried_again(tmp_path):
    """The reason is one line that names the host or the file."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    status, output = send(port)
    settings = {"smtp_security": "none", "mail_to": ["a@example.org"]}
    with MailServer() as server:
        channel = mail.Way.of(options(**MAIL | settings | {"smtp_port": server.port}), ("a@example.org",))
        way = json.dumps(json.loads(channel.encode()) | {"user": "me", "password": str(tmp_path / "nowhere")})
        done = subprocess.run(
            [sys.executable, "-m", mail.__name__, way],
            input=json.dumps(DOCUMENT),
            capture_output=True,
            text=True,
            check=False,
        )

    assert (status, output) == (os.EX_TEMPFAIL, "localhost: [Errno 111] Connection refused\n")
    assert (done.returncode, done.stdout.count("\n")) == (os.EX_TEMPFAIL, 1)
    assert f"{tmp_path / 'nowhere'} cannot be read" in done.stdout


@pytest.fixture
def transcripts(tmp_path):
    """A function that composes the mail with the transcripts that a spool has, by extension and content."""

    def compose(**contents):
        outbox = tmp_path / "spool/outbox/a"
        outbox.mkdir(parents=True)
        environment = {"WHISPERD_SPOOL": str(tmp_path / "spool")}
        for kind, content in contents.items():
            environment[f"WHISPERD_OUTPUT_{kind.upper()}"] = str(outbox / f"Grüße.{kind}")
            if isinstance(content, bytes):
                (outbox / f"Grüße.{kind}").write_bytes(content)
            elif content is not None:
                (outbox / f"Grüße.{kind}").symlink_to(content)
        outputs = {kind: f"outbox/a/Grüße.{kind}" for kind in contents}
        document = DOCUMENT | {"status": "completed", "error": None, "outputs": outputs}
        message = mail.compose(document, "a@example.org", ["b@example.org"])
        mail.attach(message, document, environment)
        return message_from_bytes(message.as_bytes(), policy=policy.default)

    return compose


def attached(message):
    return {each.get_filename(): each.get_content() for each in message.iter_attachments()}


def test_transcripts_are_attached_under_their_names(transcripts):
    """Text is UTF-8 for the reader too; the json, which is for programs, stays in the outbox."""
    message = transcripts(txt="für alle\n".encode(), docx=bytes(range(256)), json=b"{}")

    assert attached(message) == {"Grüße.txt": "für alle\n", "Grüße.docx": bytes(range(256))}
    assert message["Subject"] == "Besprechung_für_alle.wav: transcript"
    assert message["Message-ID"] == "<1-a.transcript@whisperd.invalid>"
    assert message.as_bytes().isascii()


def test_a_json_that_is_all_there_is_is_attached(transcripts):
    """The mail is about it."""
    assert attached(transcripts(json=b"{}")).keys() == {"Grüße.json"}


def test_what_cannot_be_attached_is_named(transcripts, tmp_path):
    """What is gone, what is too large beside the others, and a link, which could lead to any file of the service."""
    (tmp_path / "secret").write_text("secret word")
    message = transcripts(txt=bytes(4_000_000), srt=None, vtt=bytes(3_000_001), html=tmp_path / "secret", tsv=b"last")

    assert attached(message).keys() == {"Grüße.txt", "Grüße.tsv"}
    assert b"secret word" not in message.as_bytes()
    lines = [line for line in message.get_body().get_content().splitlines() if line.startswith("not attached: ")]
    assert [line.rpartition(": ")[0] for line in lines] == [
        f"not attached: outbox/a/Grüße.{kind}" for kind in ("srt", "vtt", "html")
    ]
    assert lines[1].endswith("too large for a mail")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"mail_from": None}, "notices.smtp_host"),
        ({"smtp_host": "mail.example.org:25"}, "notices.smtp_host"),
        ({"smtp_host": "-oProxy"}, "notices.smtp_host"),
        ({"smtp_user": "me"}, "notices.smtp_password"),
        ({"smtp_password": "x"}, "notices.smtp_password"),
        ({"smtp_user": "me", "smtp_password": "x", "smtp_security": "none"}, "notices.smtp_password"),
        ({"smtp_port": 0}, "notices.smtp_port"),
    ],
)
def test_what_no_server_could_be_told_is_refused(changes, key):
    """At start, with its key."""
    with pytest.raises(ConfigError) as caught:
        options(**MAIL | changes)

    assert [problem.split(": ")[0] for problem in caught.value.problems] == [key]


def test_no_password_is_an_argument(tmp_path):
    """Everybody on the machine can read those of a process."""
    (tmp_path / "password").write_text("secret word")
    settings = MAIL | {"smtp_user": "me", "smtp_password": str(tmp_path / "password")}

    assert "secret word" not in str(mail.channels(options(**settings))["mail"].command)
