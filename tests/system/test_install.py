"""install.sh as an admin meets it, on a machine that runs and on one that has never been booted."""

import json
from pathlib import Path

import pytest
from support.service import CLONE, INSTALL, PREFIX, QUICK, Service, lay_program, program_binds
from support.systemd_lab import Bind, SystemdLab

pytestmark = pytest.mark.systemd


class TestInstall:
    def test_twice(self, lab, service):
        """A second run changes nothing that was edited, and the service runs afterwards."""
        service.install()
        before = lab.host_path(service.config).read_text()
        result = service.install()

        assert f"kept {service.config}" in result.stdout
        assert lab.host_path(service.config).read_text() == before
        assert service.state("ActiveState") == "active"

    def test_an_upgrade_with_a_job_running(self, lab, service):
        """The new program takes the job over: nothing is lost or done twice, no attempt is lost, no error is logged."""
        service.start_jobs("talk.wav")
        before = service.main_pid
        service.script("ok")
        service.install()
        status = service.wait_status("talk.wav", "completed", timeout_seconds=60)
        lab.wait_until("the original is in done/", lambda: service.places("talk.wav") == ["done"])

        assert service.main_pid != before
        assert status["attempts"] == 1
        assert lab.journal("--priority=err") == []

    def test_for_people_at_a_terminal(self, lab, service):
        """The command is on the path, with its completion and its man pages."""
        service.install()

        assert lab.run("whisperd", "status").stdout.startswith("whisperd ")
        assert ".TH" in lab.host_path("/usr/local/share/man/man1/whisperd.1").read_text()
        assert "pool.workers" in lab.host_path("/usr/local/share/man/man5/whisperd.yaml.5").read_text()
        assert "_shtab" in lab.host_path("/usr/local/share/bash-completion/completions/whisperd").read_text()
        assert "#compdef" in lab.host_path("/usr/local/share/zsh/site-functions/_whisperd").read_text()

    def test_sample_configuration(self, lab):
        """Where there is no configuration, the commented sample is put, with the instance's own spool in it."""
        service = Service(lab, "meetings")
        service.install(check=False)  # no weights need be here
        text = lab.host_path(service.config).read_text()

        assert f"root: {service.root} " in text
        assert service.state("ExecMainStatus") in {"0", "3"}

    def test_other_prefix(self, lab, service):
        """The unit starts the program from where it was put."""
        lab.run("mv", PREFIX, "/srv/whisperd")
        lab.run("sed", "-i", "1s|.*|#!/srv/whisperd/bin/python|", "/srv/whisperd/bin/whisperd")
        service.install("--prefix", "/srv/whisperd")

        assert "/srv/whisperd/bin/whisperd run" in service.state("ExecStart")
        assert service.state("ActiveState") == "active"

    def test_program_in_a_home_directory(self, lab, service):
        """A program that the service could not see is refused before anything is started."""
        lab.run("mkdir", "-p", "/home/alice")
        lab.run("cp", "-a", PREFIX, "/home/alice/venv")
        result = service.install("--prefix", "/home/alice/venv", check=False)

        assert result.returncode == 1
        assert "/home/alice/venv, a home directory" in result.stderr
        assert lab.properties(service.unit)["LoadState"] == "not-found"

    def test_as_the_readme_calls_it(self, lab, service):
        """By its path in the clone, from there, and also where the service's user may not be."""
        lab.run("sh", "-c", f"cd {CLONE} && systemd/install.sh --no-pip")
        lab.run("sh", "-c", f"cd /root && {INSTALL} --no-pip")

        assert service.state("ActiveState") == "active"

    def test_a_user(self, lab, service):
        """`--user` adds her to the group and tries what she can do then; nothing is installed anew."""
        service.install()
        pid = service.main_pid
        lab.run("useradd", "alice")
        upload = ["runuser", "--user=alice", "--", "touch", f"{service.root}/inbox/a.cancel"]
        before = lab.run(*upload, check=False).returncode
        result = lab.run(INSTALL, "--user", "alice")
        unknown = lab.run(INSTALL, "--user", "bob", check=False)

        assert before != 0
        assert lab.run(*upload).returncode == 0
        assert f"alice can write to {service.root}/inbox" in result.stdout
        assert "new login" in result.stdout
        assert "there is no user bob" in unknown.stderr
        assert service.main_pid == pid

    def test_a_user_who_cannot_get_in(self, lab, service):
        """The group alone does not help where a directory on the way is closed, and that is said."""
        service.install()
        lab.run("useradd", "alice")
        lab.run("chmod", "700", service.root)
        result = lab.run(INSTALL, "--user", "alice", check=False)

        assert result.returncode == 1
        assert f"alice cannot write to {service.root}/inbox" in result.stderr

    @pytest.mark.usefixtures("_bootable")
    def test_before_the_first_boot(self, tmp_path):
        """Installed where systemd does not run yet, the service comes up with the first boot, by itself and unblemished."""
        program, etc = tmp_path / "program", tmp_path / "etc"
        lay_program(program, program_binds())
        etc.mkdir()
        (etc / "whisperd.yaml").write_text(json.dumps(QUICK))
        binds = (*program_binds(), Bind(program, PREFIX), Bind(etc, Path("/etc/whisperd")))
        with SystemdLab(binds, target="multi-user.target", before=f"{INSTALL} --no-pip") as lab:
            service = Service(lab)
            lab.wait_until("it is up", lambda: service.state("ActiveState") == "active")
            service.drop("talk.wav")
            service.wait_status("talk.wav", "completed")

            assert lab.journal("--priority=err") == []

    def test_uninstall(self, lab, service):
        """Removing the service, even at work, leaves spool, configuration and the program that pip did not put there."""
        service.start_jobs("talk.wav")
        lab.run(INSTALL, "--uninstall")
        state = lab.properties(service.unit)

        assert (state["LoadState"], state["ActiveState"]) == ("not-found", "inactive")
        assert service.places("talk.wav") == [".work"]
        assert lab.host_path(service.config).exists()
        assert lab.host_path(PREFIX / "bin/whisperd").exists()
        assert lab.run("find", "/usr/local", "/etc/systemd", "-name", "*whisperd*").stdout == ""

    def test_purge(self, lab, service):
        """Purging is refused while a recording waits; forced, it leaves nothing, not even the user."""
        service.install()
        lab.systemctl("stop", service.unit)
        service.drop("talk.wav")
        refused = lab.run(INSTALL, "--uninstall", "--purge", check=False)
        kept = service.places("talk.wav")
        lab.run(INSTALL, "--uninstall", "--purge", "--force")

        assert refused.returncode == 1
        assert "1 files in" in refused.stderr
        assert kept == ["inbox"]
        assert lab.run("find", "/var", "/etc", "/usr/local/lib", "-name", "*whisperd*", check=False).stdout == ""
        assert lab.run("id", "whisperd", check=False).returncode == 1
