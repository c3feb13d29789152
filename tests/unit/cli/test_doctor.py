"""What `whisperd check` says of notices and metrics, each with what mends it."""

import base64

import pytest

from whisperd.cli.doctor import examine, examine_models, examine_service
from whisperd.settings import config

SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    """A systemctl that says what it is told, and writes down what it was asked."""

    def say(answer):
        script = tmp_path / "bin/systemctl"
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\necho "$@" >"$0.asked"\necho {answer}\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
        return tmp_path / "bin/systemctl.asked"

    return say


def findings(path=None, **sections):
    found = examine_service(config.validate(sections, source="test"), path)
    return [(finding.level, finding.text, finding.hint) for finding in found]


def webhooks(url, secret):
    return {"webhooks": {"x": {"url": url, "secret": str(secret)}}}


def test_without_notices_and_metrics_there_is_nothing_to_say():
    """Nothing is looked for."""
    assert findings() == []


def test_a_command_that_cannot_be_run_is_a_warning():
    """The daemon starts all the same, and tries it again until it is there."""
    good, bad = findings(notices={"on_completed": ["/bin/true"], "on_failed": ["/etc/passwd"]})

    assert (good[0], bad[0]) == ("ok", "warning")
    assert "/etc/passwd" in bad[1]


def test_a_secret_is_tried_and_must_be_private(tmp_path):
    """A file for everybody is a signature of everybody."""
    path = tmp_path / "secret"
    missing = findings(notices=webhooks("https://host/", path))
    path.write_text(SECRET)
    path.chmod(0o644)
    opened = findings(notices=webhooks("https://host/", path))
    path.chmod(0o640)
    private = findings(notices=webhooks("https://host/", path))
    plain = findings(notices=webhooks("http://host/", path))
    local = findings(notices=webhooks("http://127.0.0.1:1/", path))

    assert [line[0] for line in missing + opened + private + local] == ["warning", "warning", "ok", "ok"]
    assert opened[0][2] == f"chmod o= {path}"
    assert [line[2] for line in plain] == ["use https", ""]
    assert SECRET not in str(missing + opened + private)


def test_neither_a_web_address_nor_the_place_of_a_secret_is_shown_whole():
    """A chat has its token in the path; a password may stand by mistake where a credential is named."""
    mail = {"mail_to": ["a@example.org"], "mail_from": "b@example.org", "smtp_host": "h", "smtp_user": "me"}
    notices = webhooks("http://hooks.example.org/bot-token", "bot-token") | mail | {"smtp_password": "bot-token"}
    found = findings(notices=notices | {"apprise": ["bot-token"]})

    assert "bot-token" not in str(found)
    assert any("sent to http://hooks.example.org/***" in line[1] for line in found)


def test_a_service_without_a_network_is_pointed_to_the_drop_in(tmp_path, systemctl):
    """The unit of the configuration in question is asked."""
    asked = systemctl("yes")
    found = findings(tmp_path / "second.yaml", notices=webhooks("https://host/", "credential"), metrics={"port": 9999})

    assert "whisperd@second.service" in asked.read_text()
    assert (
        "warning",
        "the service has no network, which notices.webhooks and metrics.port need",
        "see systemd/network.conf, a drop-in for the unit",
    ) in found


def test_a_service_with_a_network_is_let_be(systemctl):
    """As is a machine without systemd."""
    systemctl("no")

    assert [line[0] for line in findings(metrics={"port": 9999})] == ["ok"]


def test_a_sendmail_that_needs_privileges_is_a_warning(tmp_path):
    """The sandbox forbids setgid, which Postfix's has: mail would never leave."""
    path = tmp_path / "sendmail"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    good = findings(notices={"mail_to": ["root"], "sendmail": str(path)})
    path.chmod(0o2755)
    bad = findings(notices={"mail_to": ["root"], "sendmail": str(path)})

    assert (good[0][0], bad[0][0]) == ("ok", "warning")
    assert "setgid" in bad[0][1]


def test_a_mail_server_is_named_with_what_is_wrong_about_it(tmp_path):
    """An open password, a missing one, and mail that everybody on the way can read; sendmail is not looked for."""
    path = tmp_path / "password"
    mail = {"mail_to": ["a@example.org"], "mail_from": "b@example.org", "smtp_host": "mail.example.org"}
    login = mail | {"smtp_user": "me", "smtp_password": str(path), "sendmail": "/nowhere"}
    missing = findings(notices=login)
    path.write_text("secret word")
    path.chmod(0o644)
    opened = findings(notices=login)
    path.chmod(0o600)
    good = findings(notices=login)
    plain = findings(notices=mail | {"smtp_security": "none"})

    assert [[line[0] for line in found] for found in (missing, opened, good, plain)] == [
        ["warning"], ["warning"], ["ok"], ["warning"],
    ]  # fmt: skip
    assert "cannot be read: No such file" in missing[0][1]
    assert opened[0][2] == f"chmod o= {path}"
    assert "everybody on the network path" in plain[0][1]


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")  # a dependency of Apprise imports it
def test_addresses_of_chats_are_tried_and_their_tokens_are_not_shown(tmp_path):
    """A typing error is found before the first job ends."""
    path = tmp_path / "chats"
    path.write_text("ntfy://secret-word\n")
    path.chmod(0o600)
    found = findings(notices={"apprise": ["ntfy://secret-word", "nosuch://secret-word", str(path), "credential"]})
    path.write_text("\n")
    (empty,) = findings(notices={"apprise": [str(path)]})

    assert [line[0] for line in found] == ["ok", "warning", "ok", "ok"]
    assert "nosuch://...: Apprise does not understand" in found[1][1]
    assert "secret-word" not in str(found)
    assert (empty[0], "in each line" in empty[1]) == ("warning", True)


def test_the_devices_are_named_with_their_workers(tmp_path):
    """As the daemon would use them: the same process lists the GPUs."""
    values = {"root": str(tmp_path), "engine": "scripted", "script": "devices:2,ok"}
    pool = {"workers_by_device": {"cuda:1": 2}, "threads": 1}
    found = [each.text for each in examine(config.validate(values | {"pool": pool}, source="test"))]

    assert "device: cuda:0 (scripted GPU): 1 worker, threads: 1" in found
    assert "device: cuda:1 (scripted GPU): 2 workers, threads: 1" in found


def test_missing_weights_of_diarization_are_an_error_with_what_brings_them(tmp_path, monkeypatch):
    """Only where the configuration uses them: most do not."""
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    for enabled in (True, False):
        settings = config.validate(
            {"models_directory": str(tmp_path), "diarization": {"enabled": enabled}}, source="test"
        )
        found = [finding for finding in examine_models(settings) if "diarization" in finding.text]

        assert [finding.level for finding in found] == ["error"] * enabled
        assert all("whisperd models fetch speakers" in finding.hint for finding in found)


def test_a_directory_of_samples_that_cannot_be_read_is_a_warning(tmp_path):
    """In a profile too; without one nothing is said."""
    (tmp_path / "voices").mkdir()

    def found(**changes):
        sections = {"models_directory": str(tmp_path), "diarization": {"enabled": True}} | changes
        settings = config.validate(sections, source="test")
        return [(each.level, each.text) for each in examine_models(settings) if "diarization.voices" in each.text]

    own = {"enabled": True, "voices": str(tmp_path / "voices")}
    (missing, good) = found(diarization=own, profiles={"a/**": {"diarization.voices": str(tmp_path / "gone")}})
    assert missing[0] == "warning"
    assert "gone cannot be read" in missing[1]
    assert good == ("ok", f"diarization.voices: {tmp_path}/voices")
    assert found() == []
