"""A whisperd of one's own under a real `systemd --user`."""

import json

import pytest
from support.service import PREFIX, QUICK, Service

pytestmark = pytest.mark.systemd


class OwnService(Service):
    """That of alice, whose spool is in her home directory."""

    def __init__(self, lab):
        super().__init__(lab)
        self.root = "/home/alice/Transcripts"
        self.config = "/home/alice/.config/whisperd/whisperd.yaml"
        lab.run("useradd", "--create-home", "alice")
        self.runtime = f"/run/user/{lab.run('id', '-u', 'alice').stdout.strip()}"
        lab.run("install", "-d", "-m", "700", "-o", "alice", self.runtime)
        environment = [f"--setenv=XDG_RUNTIME_DIR={self.runtime}", "--setenv=HOME=/home/alice"]
        options = ["--unit=manager-of-alice", "--uid=alice", "--property=Delegate=yes", *environment]
        lab.run("systemd-run", *options, "/lib/systemd/systemd", "--user")
        lab.wait_until("her manager answers", lambda: self.systemctl("show-environment", check=False).returncode == 0)

    def alice(self, *command, check=True):
        """Run a command as alice."""
        environment = ["env", f"XDG_RUNTIME_DIR={self.runtime}", "HOME=/home/alice"]
        return self.lab.run("runuser", "--user=alice", "--", *environment, *command, check=check)

    def systemctl(self, *arguments, check=True):
        """Ask her own manager."""
        return self.alice("systemctl", "--user", *arguments, check=check)


def test_a_service_of_ones_own(lab):
    """It starts with the login, transcribes what alice drops, and nobody else sees any of it."""
    service = OwnService(lab)
    service.alice(PREFIX / "bin/whisperd", "init", "--user")
    config = lab.host_path(service.config)
    config.write_text(json.dumps({"root": service.root} | QUICK))  # JSON is YAML
    kept = service.alice(PREFIX / "bin/whisperd", "init", "--user").stdout
    service.systemctl("daemon-reload")
    service.systemctl("enable", "--now", "whisperd")
    active = service.systemctl("is-active", "whisperd").stdout.strip()
    service.drop("talk.wav")
    service.wait_status("talk.wav", "completed")
    lab.wait_until("the original is in done/", lambda: service.places("talk.wav") == ["done"])
    wants = lab.run("ls", "/home/alice/.config/systemd/user/default.target.wants").stdout.split()
    outsider = lab.run("runuser", "--user=nobody", "--", "ls", f"{service.root}/outbox", check=False)
    service.systemctl("stop", "whisperd")

    assert f"kept {service.config}" in kept
    assert active == "active"
    assert wants == ["whisperd.service"]
    assert outsider.returncode != 0
