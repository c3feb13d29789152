"""The service as an admin meets it: installed by install.sh, driven by systemctl, under a real systemd."""

import re
import signal
from pathlib import Path

import pytest
from support.service import QUICK, SCRIPT, Service

pytestmark = pytest.mark.systemd


def remarks(service):
    """What systemd itself says of a service."""
    return [entry["MESSAGE"] for entry in service.lab.journal(f"UNIT={service.unit}")]


def kills_for_memory(service):
    """How many processes of a service the kernel killed because it outgrew its limit."""
    group = service.state("ControlGroup")
    files = f"/sys/fs/cgroup/memory{group}/memory.oom_control", f"/sys/fs/cgroup{group}/memory.events"
    (path,) = filter(Path.exists, map(service.lab.host_path, files))
    return int(dict(line.split() for line in path.read_text().splitlines())["oom_kill"])


class TestStart:
    def test_waits_for_a_worker(self, service):
        """READY is not said, and `systemctl start` does not return, before a worker has loaded its model."""
        service.install()
        service.lab.systemctl("stop", service.unit)
        service.script("boot:hang")
        service.configure(script=f"@{SCRIPT}")
        service.lab.systemctl("start", "--no-block", service.unit)
        service.lab.wait_until("all else is there", lambda: service.state("StatusText") == "loading the model base")
        loading = service.state("ActiveState")
        service.script("ok")
        service.lab.run("kill", f"-{signal.SIGKILL}", str(*service.workers()))

        assert loading == "activating"
        service.lab.wait_until("it is ready", lambda: service.state("ActiveState") == "active")

    def test_says_what_it_does(self, service):
        """`systemctl status` shows a line of figures: what runs, what waits."""
        service.start_jobs("one.wav", "two.wav")

        shown = lambda: service.lab.systemctl("status", service.unit).stdout  # noqa: E731
        service.lab.wait_until("figures", lambda: re.search(r'Status: "1 running \(one.wav \d+%\), 1 queued', shown()))

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

    def test_no_storm_of_restarts(self, service):
        """A program that always dies is started five times and no more."""
        service.override(ExecStart="\nExecStart=/bin/false", RestartSec="10ms")
        service.install(check=False)
        service.lab.wait_until("systemd gives up", lambda: service.state("ActiveState") == "failed")

        assert any("Start request repeated too quickly" in line for line in remarks(service))
        assert int(service.state("NRestarts")) <= 5

    def test_disk_of_the_spool_is_missing(self, lab, service):
        """A spool on a disk of its own that cannot be mounted: the service does not start over the empty directory."""
        service.install()
        lab.systemctl("stop", service.unit)
        mount = "[Mount]\nWhat=tmpfs\nType=tmpfs\nOptions=size=nonsense\nWhere=/var/spool/whisperd\n"
        lab.host_path("/etc/systemd/system/var-spool-whisperd.mount").write_text(mount)
        lab.systemctl("daemon-reload")
        result = lab.systemctl("start", service.unit, check=False)

        assert "dependency" in result.stderr
        assert service.state("ActiveState") == "inactive"


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
        """A good recording and a bad one leave no error in the journal of the machine, only information and a warning."""
        service.install()
        service.drop("good.wav")
        (service.spool / "inbox/bad.mp3").write_text("this is no sound")
        service.wait_status("good.wav", "completed")
        service.wait_status("bad.mp3", "failed")
        warnings = service.messages("--priority=warning")

        assert [entry["MESSAGE"] for entry in service.lab.journal("--priority=err")] == []
        assert len([line for line in warnings if "bad.mp3" in line]) == 1
        assert [line for line in warnings if "good.wav" in line] == []
        assert [line for line in service.messages() if "good.wav" in line] != []

    def test_the_log_of_one_job(self, lab, service):
        """`whisperd logs NAME` prints what the journal has about that job, from the supervisor, and about no other."""
        service.install()
        service.drop("good.wav")
        (service.spool / "inbox/bad.mp3").write_text("this is no sound")
        good = service.wait_status("good.wav", "completed")
        service.wait_status("bad.mp3", "failed")
        logged = lambda: service.messages(f"WHISPERD_JOB={good['id']}")  # noqa: E731
        lab.wait_until("its end is logged", lambda: any("completed" in line for line in logged()))
        lines = lab.run("/opt/whisperd/bin/whisperd", "logs", "good.wav").stdout.splitlines()

        for part, line in zip(("claimed", "attempt 1 starts", "completed"), lines, strict=True):
            assert f"good.wav: {part}" in line
        assert len(logged()) == 3

    def test_two_instances(self, lab, service):
        """Instances have spools of their own and work at the same time; a stop of one is nothing to the other."""
        one, two = Service(lab, "one"), Service(lab, "two")
        for each in (one, two):
            each.configure(script="slow:0.3")
            each.install()
        one.drop("one.wav", seconds=60)  # later than both are installed, which restarts the one that is there
        two.drop("two.wav", seconds=30)
        one.wait_running("one.wav")
        two.wait_running("two.wav")
        lab.systemctl("stop", one.unit)
        two.wait_status("two.wav", "completed")

        assert (one.places("one.wav"), two.places("two.wav")) == ([".work"], ["done"])
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
    def test_jobs_in_flight(self, service):
        """A stop releases the running jobs: nothing is lost, no attempt is counted, and the next start completes all."""
        names = ["one.wav", "two.wav", "three.wav"]
        service.start_jobs(*names, workers=2)
        service.lab.systemctl("stop", service.unit)
        state = service.lab.properties(service.unit)
        places = service.places("one.wav")
        service.script("ok")
        service.lab.systemctl("start", service.unit)
        sidecars = [service.wait_status(name, "completed") for name in names]

        assert (state["Result"], state["ExecMainStatus"], state.get("ControlGroup")) == ("success", "0", None)
        assert places == [".work"] * 3
        assert [sidecar["attempts"] for sidecar in sidecars] == [1, 1, 1]
        assert service.places("one.wav") == ["done"] * 3
        assert service.messages("--priority=err") == []


class TestFaults:
    def test_supervisor_killed(self, service):
        """SIGKILL for the supervisor: systemd ends its workers, starts it again, and the job completes once."""
        service.start_jobs("interview.wav")
        service.override(RestartSec="100ms")
        processes = service.lab.processes(service.unit)
        service.script("ok")
        service.lab.systemctl("kill", "--kill-whom=main", "--signal=KILL", service.unit)
        service.wait_status("interview.wav", "completed")
        state = service.lab.properties(service.unit)

        assert (state["NRestarts"], state["ActiveState"]) == ("1", "active")
        assert not set(processes) & set(service.lab.processes(service.unit))
        assert service.places("interview.wav") == ["done"]

    def test_worker_killed(self, service):
        """SIGKILL for a worker: the supervisor replaces it, systemd need not act, the job completes."""
        service.start_jobs("interview.wav")
        pid = service.main_pid
        (worker,) = service.workers()
        service.script("ok")
        service.lab.run("kill", f"-{signal.SIGKILL}", str(worker))
        sidecar = service.wait_status("interview.wav", "completed")

        assert sidecar["attempts"] == 2
        assert (service.main_pid, service.state("NRestarts")) == (pid, "0")
        assert service.workers() != [worker]

    def test_worker_outgrows_the_memory(self, service):
        """A worker beyond MemoryMax= is killed by the kernel, its job fails in the end and says why, the rest lives on."""
        if not service.lab.has_controller("memory"):
            pytest.skip("the lab has no memory controller")
        service.script("leak:1000")
        service.configure(script=f"@{SCRIPT}", pool=QUICK["pool"] | {"max_attempts": 2})
        service.override(MemoryMax="400M", MemorySwapMax="0")
        service.install()
        pid = service.main_pid
        service.drop("big.wav")
        failed = service.wait_status("big.wav", "failed")
        service.script("ok")
        service.drop("small.wav")
        service.wait_status("small.wav", "completed")

        assert (failed["attempts"], failed["error"]["code"]) == (2, "worker_died")
        assert "SIGKILL, perhaps out of memory" in failed["error"]["message"]
        assert "MemoryMax=" in failed["error"]["hint"]
        # Before the device has proven itself, the first end of a fresh worker costs the job no attempt.
        assert kills_for_memory(service) == 3
        assert (service.main_pid, service.state("NRestarts")) == (pid, "0")

    def test_whom_the_kernel_kills_first(self, service):
        """Where the whole machine runs out of memory, a worker goes before the supervisor and before other services."""
        service.install()
        score = lambda pid: int(service.lab.host_path(f"/proc/{pid}/oom_score_adj").read_text())  # noqa: E731

        assert [score(worker) for worker in service.workers()] == [500]
        assert score(service.main_pid) == score(1)

    def test_loop_stalled(self, service):
        """A supervisor whose loop stands still is killed by the watchdog, says where it stood, and the job completes."""
        service.start_jobs("interview.wav")
        service.override(RestartSec="100ms", WatchdogSec="1s")
        service.lab.systemctl("restart", service.unit)
        service.wait_running("interview.wav")
        service.script("ok")
        service.lab.systemctl("kill", "--kill-whom=main", "--signal=STOP", service.unit)
        service.wait_status("interview.wav", "completed")

        assert any("Watchdog timeout" in line for line in remarks(service))
        assert any("Fatal Python error: Aborted" in line for line in service.messages())
        assert any("supervisor.py" in line for line in service.messages())
        assert (service.state("ActiveState"), service.state("NRestarts")) == ("active", "1")
        assert service.places("interview.wav") == ["done"]
