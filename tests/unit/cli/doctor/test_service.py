"""What `whisperd check` says of notices and metrics, each with what mends it."""

import base64

import pytest

from whisperd.cli.doctor.service import examine_service
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
