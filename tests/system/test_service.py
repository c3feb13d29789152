"""The service as an admin meets it: installed by install.sh, driven by systemctl, under a real systemd."""

import os
import signal

import pytest
from support.service import INSTALL, PREFIX, PYTHON, Service, provide_packages

pytestmark = pytest.mark.systemd

SCRIPT = "/etc/whisperd/script"  # what the scripted engine does next; see whisperd.engine.scripted


def script(lab, action):
    path = lab.host_path(SCRIPT)
    path.parent.mkdir(exist_ok=True)
    path.write_text(action)


def start_job(service, name="interview.wav", seconds=2):
    """Bring one recording so far that the engine is busy with it, and will be for a minute."""
    script(service.lab, "slow:60")
    service.configure(script=f"@{SCRIPT}")
    service.install()
    service.drop(name, seconds)
    service.lab.wait_until("the job runs", lambda: service.sidecar(name).get("phase") == "transcribing")


class TestStart:
    def test_waits_for_a_worker(self, service):
        """`systemctl start` does not return, and READY is not said, before a worker has loaded its model."""
        service.install()
        service.lab.systemctl("stop", service.unit)
        service.configure(script="boot:hang")
        service.lab.systemctl("start", "--no-block", service.unit)
        service.lab.wait_until("a worker is there", service.workers)

        assert service.state("ActiveState") == "activating"

    def test_says_what_it_does(self, service):
        """Once started, `systemctl status` shows a line of figures."""
        service.install()

        service.lab.wait_until("a status", lambda: service.state("StatusText").startswith("0 running, 0 queued"))
        assert service.state("ActiveState") == "active"

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            pytest.param({"pol": {"workers": 2}}, 78, id="configuration"),
            pytest.param({"script": "boot:fail"}, 3, id="engine"),
            pytest.param({"engine": "openai-whisper", "model": "/nowhere/model.pt"}, 3, id="missing-model"),
        ],
    )
    def test_fails_once_when_nobody_can_help(self, service, changes, status):
        """What a restart cannot cure ends the service with its exit status, no restart, and one error in the journal."""
        service.configure(**changes)
        result = service.install(check=False)
        (message,) = service.messages("--priority=err")
        state = service.lab.properties(service.unit)

        assert result.returncode == 1
        assert message in result.stdout
        assert (state["ExecMainStatus"], state["ActiveState"], state["NRestarts"]) == (str(status), "failed", "0")

    def test_second_daemon_on_one_spool(self, lab, service):
        """A spool that another daemon owns ends the second one with status 75, and disturbs the first one in nothing."""
        service.install()
        second = Service(lab, "second")
        second.configure(root=service.root)
        second.override(ReadWritePaths=service.root)
        second.install(check=False)

        assert (second.state("ExecMainStatus"), second.state("NRestarts")) == ("75", "0")
        assert service.state("ActiveState") == "active"

    def test_at_boot(self, service):
        """The service is enabled: it comes up with the machine."""
        service.install()
        service.lab.systemctl("isolate", "lab.target")
        service.lab.wait_until("it is down", lambda: service.state("ActiveState") == "inactive")
        service.lab.systemctl("isolate", "multi-user.target")

        service.lab.wait_until("it is up", lambda: service.state("ActiveState") == "active")


class TestWork:
    def test_a_user_uploads_and_reads(self, lab, service):
        """A member of the group, however private her umask, uploads into a folder of her own and reads what comes out."""
        service.install()
        lab.run("useradd", "--groups=whisperd", "alice")
        service.drop("sample.wav")
        sidecar = service.wait_status("sample.wav", "completed")
        upload = (
            f"umask 077; mkdir {service.root}/inbox/alice; cp {service.root}/done/sample.wav {service.root}/inbox/alice"
        )
        lab.run("runuser", "--user=alice", "--", "sh", "-c", upload)
        service.wait_status("alice/sample.wav", "completed")
        read = lab.run("runuser", "--user=alice", "--", "cat", f"{service.root}/outbox/alice/sample.txt").stdout
        outsider = lab.run("runuser", "--user=nobody", "--", "ls", f"{service.root}/outbox", check=False)

        assert sidecar["engine"] == "scripted"
        assert read.startswith("scripted 1.00 s")
        assert outsider.returncode != 0

    def test_journal_keeps_errors_for_people(self, service):
        """A good recording and a bad one leave no error in the journal, only information and a warning."""
        service.install()
        service.drop("good.wav")
        (service.spool / "inbox/bad.mp3").write_text("this is no sound")
        service.wait_status("good.wav", "completed")
        service.wait_status("bad.mp3", "failed")
        warnings = service.messages("--priority=warning")

        assert service.messages("--priority=err") == []
        assert len([line for line in warnings if "bad.mp3" in line]) == 1
        assert [line for line in warnings if "good.wav" in line] == []
        assert [line for line in service.messages() if "good.wav" in line] != []

    def test_two_instances(self, lab, service):
        """Instances have spools of their own and work side by side."""
        services = [Service(lab, "one"), Service(lab, "two")]
        for each in services:
            each.configure()
            each.install()
            each.drop(f"{each.instance}.wav")
        for each in services:
            each.wait_status(f"{each.instance}.wav", "completed")

        assert [each.places(f"{each.instance}.wav") for each in services] == [["done"], ["done"]]
        assert lab.systemctl("is-enabled", service.unit, check=False).stdout.strip() != "enabled"


class TestReload:
    def test_new_configuration(self, service):
        """`systemctl reload` applies a changed file without a restart."""
        service.install()
        pid = service.main_pid
        service.configure(output={"formats": ["srt"]})
        service.lab.systemctl("reload", service.unit)
        service.lab.wait_until("it was reloaded", lambda: "the new configuration is in use" in service.messages())
        service.drop("talk.wav")
        sidecar = service.wait_status("talk.wav", "completed")

        assert list(sidecar["outputs"]) == ["srt"]
        assert service.main_pid == pid

    def test_bad_configuration(self, service):
        """A bad file is refused whole: the error names the key, and the service goes on with what it had."""
        service.install()
        pid = service.main_pid
        service.configure(output={"formats": ["srt"]}, pool={"workers": 0})
        service.lab.systemctl("reload", service.unit)
        errors = service.lab.wait_until("an error", lambda: service.messages("--priority=err"))
        service.lab.wait_until("reload is over", lambda: service.state("SubState") == "running")
        service.drop("talk.wav")
        sidecar = service.wait_status("talk.wav", "completed")

        assert "pool.workers" in "\n".join(errors)
        assert "txt" in sidecar["outputs"]
        assert service.main_pid == pid


class TestStop:
    def test_job_in_flight(self, service):
        """A stop releases the running job: nothing is lost, no attempt is counted, and the next start completes it."""
        start_job(service)
        service.lab.systemctl("stop", service.unit)
        state = service.lab.properties(service.unit)
        places = service.places("interview.wav")
        script(service.lab, "ok")
        service.lab.systemctl("start", service.unit)
        sidecar = service.wait_status("interview.wav", "completed")

        assert (state["Result"], state["ExecMainStatus"], state.get("ControlGroup")) == ("success", "0", None)
        assert len(places) == 1
        assert sidecar["attempts"] == 1
        assert service.places("interview.wav") == ["done"]
        assert service.messages("--priority=err") == []


class TestFaults:
    def test_supervisor_killed(self, service):
        """SIGKILL for the supervisor: systemd ends its workers, starts it again, and the job completes once."""
        start_job(service)
        service.override(RestartSec="100ms")
        processes = service.lab.processes(service.unit)
        script(service.lab, "ok")
        service.lab.systemctl("kill", "--kill-whom=main", "--signal=KILL", service.unit)
        service.wait_status("interview.wav", "completed")
        state = service.lab.properties(service.unit)

        assert (state["NRestarts"], state["ActiveState"]) == ("1", "active")
        assert not set(processes) & set(service.lab.processes(service.unit))
        assert service.places("interview.wav") == ["done"]

    def test_worker_killed(self, service):
        """SIGKILL for a worker: the supervisor replaces it, systemd need not act, the job completes."""
        start_job(service)
        pid = service.main_pid
        (worker,) = service.workers()
        script(service.lab, "ok")
        service.lab.run("kill", f"-{signal.SIGKILL}", str(worker))
        sidecar = service.wait_status("interview.wav", "completed")

        assert sidecar["attempts"] == 2
        assert (service.main_pid, service.state("NRestarts")) == (pid, "0")
        assert service.workers() != [worker]

    def test_loop_stalled(self, service):
        """A supervisor whose loop stands still is killed by the watchdog and started again, and the job completes."""
        start_job(service)
        service.override(RestartSec="100ms", WatchdogSec="1s")
        service.lab.systemctl("restart", service.unit)
        service.lab.wait_until(
            "the job runs again", lambda: service.sidecar("interview.wav")["phase"] == "transcribing"
        )
        script(service.lab, "ok")
        service.lab.systemctl("kill", "--kill-whom=main", "--signal=STOP", service.unit)
        service.wait_status("interview.wav", "completed")
        remarks = [entry["MESSAGE"] for entry in service.lab.journal(f"UNIT={service.unit}")]

        assert any("Watchdog timeout" in line for line in remarks)
        assert (service.state("ActiveState"), service.state("NRestarts")) == ("active", "1")
        assert service.places("interview.wav") == ["done"]


class TestInstall:
    def test_twice(self, lab, service):
        """A second run changes nothing that was edited, and the service runs afterwards."""
        service.install()
        before = lab.host_path(service.config).read_text()
        result = service.install()

        assert f"kept {service.config}" in result.stdout
        assert lab.host_path(service.config).read_text() == before
        assert service.state("ActiveState") == "active"

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

    @pytest.mark.slow
    def test_program_made_by_pip(self, lab, service):
        """The script makes the virtual environment and fills it from the clone; run again, it mends what failed before."""
        lab.run("rm", "-rf", PREFIX)
        index = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        no_index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
        command = [INSTALL, "--extras", "", "--python", PYTHON / "bin/python3"]
        first = lab.run(*command, check=False, **no_index)
        provide_packages(lab)  # nothing needs to be downloaded but what builds the package
        lab.run(*command, timeout_seconds=200, **index)
        state = service.state("ActiveState")
        lab.run(INSTALL, "--uninstall")

        assert first.returncode == 1
        assert state == "active"
        assert not lab.host_path(PREFIX).exists()

    def test_uninstall(self, lab, service):
        """Removing the service leaves spool, configuration and the program that pip did not put there."""
        service.install()
        service.drop("talk.wav")
        service.wait_status("talk.wav", "completed")
        lab.run(INSTALL, "--uninstall")
        state = lab.properties(service.unit)

        assert (state["LoadState"], state["ActiveState"]) == ("not-found", "inactive")
        assert service.places("talk.wav") == ["done"]
        assert lab.host_path(service.config).exists()
        assert lab.host_path(PREFIX / "bin/whisperd").exists()
        assert lab.run("find", "/usr/local/lib", "/etc/systemd", "-name", "*whisperd*").stdout == ""

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
