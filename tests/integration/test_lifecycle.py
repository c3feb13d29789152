"""A real daemon, real workers, real signals: how it starts, stops, is killed, and what becomes of the jobs.

The engine is scripted; everything else is what users run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.daemon import Daemon, originals, tone

from whisperd.media.ffmpeg import find_ffmpeg

CAP_LEASE = 28  # capabilities(7), as a bit

SLOW = {"script": "slow:0.2"}  # a fifth of a second of work per second of audio


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


def running(daemon, name="a.wav"):
    """Whether the engine is at work on it."""
    document = daemon.sidecar(name)
    return document and document["phase"] == "transcribing" and document["progress"] > 0


def test_ready_means_a_worker_is_ready_and_the_inbox_is_watched(root):
    """READY=1 comes after the model is loaded; a file dropped then is found by its event, long before the next scan."""
    with Daemon(root, {"intake": {"rescan_seconds": 3600.0}}) as daemon:
        daemon.wait_ready()
        assert daemon.logged("is ready: base on cpu")
        tone(root / "inbox/sub/a.wav")
        daemon.wait(lambda: daemon.status("sub/a.wav") == "completed", what="the transcript")

        assert (root / "outbox/sub/a.txt").read_text().startswith("scripted 1.00 s")
        daemon.wait((root / "done/sub/a.wav").exists, what="the original in done/")
        assert daemon.stop() == 0
        assert daemon.errors() == []


def test_an_idle_worker_gives_its_memory_back_and_returns_for_the_next_job(root):
    """After `pool.idle_unload_seconds` its process is gone, the daemon is well, and a job finds a fresh one."""
    with Daemon(root, {"pool": {"idle_unload_seconds": 0.5}}) as daemon:
        daemon.wait_ready()
        (first,) = daemon.workers()
        tone(root / "inbox/a.wav")
        daemon.wait(lambda: daemon.status("a.wav") == "completed", what="the first transcript")
        daemon.wait(lambda: not daemon.workers() and not Path(f"/proc/{first}").exists(), what="the end of the worker")
        tone(root / "inbox/b.wav", seconds=2.0)
        daemon.wait(lambda: daemon.status("b.wav") == "completed", what="the second transcript")

        assert daemon.sidecar("b.wav")["attempts"] == 1
        assert daemon.stop() == 0
        assert daemon.errors() == []


def test_stop_when_idle(root):
    """SIGTERM ends an idle daemon at once, with STOPPING=1, status 0, and no process left."""
    with Daemon(root) as daemon:
        daemon.wait_ready()
        workers = daemon.workers()
        status = daemon.stop(within_seconds=5.0)

        assert status == 0
        assert "STOPPING=1" in daemon.notices
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_stop_lets_a_short_job_finish(root):
    """Within the grace time running jobs come to their end."""
    with Daemon(root, SLOW) as daemon:
        daemon.wait_ready()
        tone(root / "inbox/a.wav", seconds=15.0)
        daemon.wait(lambda: running(daemon), what="progress")
        status = daemon.stop()

        assert status == 0
        assert daemon.status("a.wav") == "completed"


@pytest.mark.parametrize("script", ["slow:2", "hang"])
def test_stop_releases_what_does_not_finish(root, script):
    """After the grace time a job is given back: nothing is lost, no attempt is counted, and it is done at the next start."""
    with Daemon(root, {"script": script, "pool": {"stop_grace_seconds": 0.2}}) as daemon:
        daemon.wait_ready()
        tone(root / "inbox/a.wav", seconds=60.0)
        daemon.wait(lambda: (daemon.sidecar("a.wav") or {}).get("phase") == "transcribing", what="the start of the job")
        assert daemon.stop(within_seconds=20.0) == 0

        assert daemon.logged("a.wav: released")
        document = daemon.sidecar("a.wav")
        assert (document["status"], document["phase"], document["attempts"]) == ("pending", "queued", 0)
        daemon.configure({"script": "ok"})
        daemon.start()
        daemon.wait(lambda: daemon.status("a.wav") == "completed", what="the transcript after the restart")
        assert daemon.sidecar("a.wav")["attempts"] == 1
        daemon.stop()


@pytest.mark.parametrize("signals", [(signal.SIGQUIT,), (signal.SIGTERM, signal.SIGTERM)], ids=["QUIT", "TERM twice"])
def test_asked_to_hurry_it_does_not_wait_for_the_grace_time(root, signals):
    """SIGQUIT, or a second SIGTERM, releases the jobs at once."""
    with Daemon(root, {"script": "slow:2", "pool": {"stop_grace_seconds": 600.0}}) as daemon:
        daemon.wait_ready()
        tone(root / "inbox/a.wav", seconds=60.0)
        daemon.wait(lambda: (daemon.sidecar("a.wav") or {}).get("phase") == "transcribing", what="the start of the job")
        for number in signals[:-1]:
            daemon.process.send_signal(number)
            daemon.wait(lambda: "STOPPING=1" in daemon.notices, what="STOPPING=1")
        status = daemon.stop(signals[-1], within_seconds=15.0)

        assert status == 0
        assert daemon.sidecar("a.wav")["status"] == "pending"
        assert len(originals(root)[".work"]) == 1


def test_interrupt_from_the_terminal_stops_it_in_order(root):
    """Ctrl-C reaches the supervisor alone, which winds down as for SIGTERM."""
    with Daemon(root, SLOW) as daemon:
        daemon.wait_ready()
        tone(root / "inbox/a.wav", seconds=15.0)
        daemon.wait(lambda: running(daemon), what="progress")

        assert daemon.stop(signal.SIGINT) == 0
        assert daemon.status("a.wav") == "completed"


def test_a_killed_supervisor_takes_its_workers_along(root):
    """A worker must not outlive the lock on its spool: the next daemon gives the job to another one."""
    with Daemon(root, SLOW) as daemon:
        daemon.wait_ready()
        tone(root / "inbox/a.wav", seconds=30.0)
        daemon.wait(lambda: running(daemon), what="progress")
        workers = daemon.workers()
        daemon.kill()
        daemon.wait(
            lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers), what="the end of the workers"
        )
        daemon.configure({"script": "ok"})
        daemon.start()
        daemon.wait(lambda: daemon.status("a.wav") == "completed", what="the transcript after the restart")

        assert daemon.sidecar("a.wav")["attempts"] == 2
        assert not (root / "outbox/a-2.txt").exists()
        daemon.stop()


def test_a_killed_worker_is_replaced_and_its_job_tried_again(root, tmp_path):
    """The reason names the signal; the second attempt completes."""
    with Daemon(root, SLOW) as daemon:
        daemon.wait_ready()
        tone(root / "inbox/a.wav", seconds=20.0)
        daemon.wait(lambda: running(daemon), what="progress")
        os.kill(daemon.workers()[0], signal.SIGKILL)
        daemon.wait(lambda: daemon.status("a.wav") == "completed", what="the second attempt")

        assert daemon.logged("was killed by SIGKILL, perhaps out of memory")
        assert daemon.sidecar("a.wav")["attempts"] == 2
        daemon.stop()


@pytest.mark.parametrize(
    ("script", "code"), [("exit:9", "worker_died"), ("raise:engine", "engine"), ("raise:bug", "internal")]
)
def test_a_file_that_fails_every_time_ends_in_failed(root, script, code):
    """After max_attempts the original is in failed/ and the sidecar says why; the daemon goes on."""
    with Daemon(root, {"script": script}) as daemon:
        daemon.wait_ready()
        content = tone(root / "inbox/a.wav").read_bytes()
        daemon.wait(lambda: daemon.status("a.wav") == "failed", what="the failure")

        document = daemon.sidecar("a.wav")
        assert document["attempts"] == 3
        assert document["error"]["code"] == code
        assert document["original"] == "failed/a.wav"
        daemon.wait((root / "failed/a.wav").exists, what="the original in failed/")
        assert (root / "failed/a.wav").read_bytes() == content
        assert daemon.stop() == 0


def test_a_file_that_can_never_work_is_not_tried_again(root):
    """An InputError is final at the first attempt."""
    with Daemon(root, {"script": "raise:input"}) as daemon:
        daemon.wait_ready()
        tone(root / "inbox/a.wav")
        daemon.wait(lambda: daemon.status("a.wav") == "failed", what="the failure")

        assert daemon.sidecar("a.wav")["attempts"] == 1
        assert daemon.sidecar("a.wav")["error"]["retryable"] is False


def test_a_hung_worker_is_stopped_by_the_ladder(root):
    """No heartbeat: asked, then SIGABRT with a traceback in the journal; each rung is logged; the job is tried again."""
    settings = {"script": "hang", "pool": {"heartbeat_seconds": 0.5, "max_attempts": 1}}
    with Daemon(root, settings) as daemon:
        daemon.wait_ready()
        tone(root / "inbox/a.wav")
        daemon.wait(lambda: daemon.status("a.wav") == "failed", within_seconds=60.0, what="the failure")

        assert daemon.logged("asked to give the job back")
        assert daemon.logged("SIGABRT")
        assert daemon.logged("in _misbehave"), "faulthandler says where it hung"
        assert daemon.sidecar("a.wav")["error"]["code"] == "timeout"
        daemon.stop()


def test_a_job_past_its_deadline_is_stopped_though_it_gives_signs_of_life(root):
    """The deadline scales with the length of the audio; a worker that answers keeps its process."""
    settings = {"script": "slow:1", "pool": {"deadline_seconds": 0.5, "deadline_factor": 0.01, "max_attempts": 1}}
    with Daemon(root, settings) as daemon:
        daemon.wait_ready()
        workers = daemon.workers()
        tone(root / "inbox/a.wav", seconds=60.0)
        daemon.wait(lambda: daemon.status("a.wav") == "failed", what="the failure")

        assert daemon.sidecar("a.wav")["error"]["message"].startswith("not done after")
        assert daemon.workers() == workers
        daemon.stop()


def test_a_model_that_cannot_be_loaded_stops_the_daemon_with_one_line(root):
    """Exit status 3, one clear line, no restarts for ever, and the upload stays safe."""
    with Daemon(
        root, {"engine": "openai-whisper", "model": "small", "models_directory": str(root.parent / "none")}
    ) as daemon:
        status = daemon.wait_exit(60.0)

        assert status == 3
        errors = [line for line in daemon.lines if "whisperd:" in line]
        assert len(errors) == 1
        assert "whisperd models fetch small" in errors[0]


def test_workers_that_die_while_booting_stop_the_daemon(root):
    """Three deaths before the first READY are a boot error, not a crash loop."""
    with Daemon(root, {"script": "boot:exit:7"}) as daemon:
        assert daemon.wait_exit(60.0) == 3

        assert daemon.logged("exited with status 7 while it loaded the model")


@pytest.mark.parametrize("action", ["boot:fail", "boot:exit:7"])
def test_a_replacement_that_cannot_load_does_not_end_the_daemon(root, tmp_path, action):
    """Weights on a share that is away: STATUS, status files and metrics say so, uploads queue, no attempt is lost."""
    script, figures = tmp_path / "script", tmp_path / "figures.prom"
    script.write_text("ok")
    settings = {
        "script": f"@{script}",
        "metrics": {"textfile": str(figures), "every_seconds": 1.0},
        "pool": {"queue_size": 2},
    }
    with Daemon(root, settings) as daemon:
        daemon.wait_ready()
        script.write_text(action)
        os.kill(daemon.workers()[0], signal.SIGKILL)
        daemon.wait(
            lambda: any("no worker can be used: " in notice for notice in daemon.notices), what="the cause in STATUS"
        )
        for name in ("a.wav", "b.wav", "c.wav"):
            tone(root / f"inbox/{name}")
        daemon.wait(
            lambda: all(
                "no worker can be used" in ((daemon.sidecar(name) or {}).get("reason") or "")
                for name in ("a.wav", "b.wav")
            ),
            what="the cause in the status files",
        )
        daemon.wait(
            lambda: "queue is full" in ((daemon.sidecar("c.wav") or {}).get("reason") or ""), what="a full queue"
        )
        daemon.wait(
            lambda: (
                'whisperd_workers_failing{spool="' in figures.read_text()
                and float(figures.read_text().split("whisperd_workers_failing{")[1].split()[1]) == 1.0
            ),
            what="the figure",
        )
        assert daemon.process.poll() is None
        assert daemon.sidecar("a.wav")["attempts"] == 0
        assert len([line for line in daemon.errors() if "a worker cannot be used: " in line]) == 1
        script.write_text("ok")
        daemon.process.send_signal(signal.SIGHUP)  # it would be tried again without this
        daemon.wait(lambda: all(daemon.status(f"{name}.wav") == "completed" for name in "abc"), what="the transcripts")

        assert daemon.logged("all workers can be used again")
        assert daemon.sidecar("a.wav")["attempts"] == 1
        assert daemon.stop() == 0


def test_two_daemons_cannot_share_a_root(root):
    """The second exits with 75 and says who is to be stopped."""
    with Daemon(root) as daemon:
        daemon.wait_ready()
        second = subprocess.run(
            [sys.executable, "-m", "whisperd", "run", "--config", daemon.config],
            capture_output=True,
            text=True,
            check=False,
        )

        assert second.returncode == 75
        assert "another whisperd is running" in second.stderr
        daemon.stop()


def test_reload_applies_a_good_configuration_to_the_next_job(root):
    """SIGHUP: RELOADING=1 with its time, then READY=1; a changed engine setting replaces the workers, jobs go on."""
    with Daemon(root) as daemon:
        daemon.wait_ready()
        workers = daemon.workers()
        daemon.configure({"output": {"formats": ["srt"]}, "model": "other"})
        daemon.notices.clear()
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait(lambda: "READY=1" in daemon.notices, what="READY=1 after the reload")
        tone(root / "inbox/a.wav")
        daemon.wait(lambda: daemon.status("a.wav") == "completed", what="the transcript")

        assert "RELOADING=1" in daemon.notices
        assert any(notice.startswith("MONOTONIC_USEC=") for notice in daemon.notices)
        assert sorted(daemon.sidecar("a.wav")["outputs"]) == ["srt"]
        daemon.wait(lambda: daemon.logged("is ready: other on cpu"), what="a worker with the other model")
        assert daemon.workers() != workers
        daemon.stop()


@pytest.mark.parametrize("change", [{"nonsense": 1}, {"root": "/elsewhere"}], ids=["unknown key", "other root"])
def test_reload_refuses_a_bad_configuration_whole(root, change):
    """The old settings stay, the journal says why, and the daemon works on."""
    with Daemon(root) as daemon:
        daemon.wait_ready()
        good = daemon.config.read_text()
        daemon.config.write_text(json.dumps({"root": str(root), **daemon.settings, **change}))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait(lambda: daemon.logged("is refused, the old one stays"), what="the refusal")
        tone(root / "inbox/a.wav")
        daemon.wait(lambda: daemon.status("a.wav") == "completed", what="the transcript")

        assert all("refused" in line or line.startswith("<3>  ") for line in daemon.errors())
        daemon.config.write_text(good)
        assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"script": "boot:fail"}, "the engine does not start, says the script (change the script"),
        ({"script": "boot:exit:7"}, "exited with status 7 while it loaded the model 'base'"),
        ({"script": "boot:hang", "pool": {"boot_seconds": 1.0}}, "did not load the model 'base' within 1 s"),
    ],
    ids=["does not load", "dies", "hangs"],
)
def test_reload_refuses_whole_what_no_worker_can_load(root, change, reason):
    """The worker in use stays and so does its job, nothing else of the new configuration counts, and STATUS says why."""
    with Daemon(root, SLOW) as daemon:
        daemon.wait_ready()
        workers = daemon.workers()
        tone(root / "inbox/a.wav", seconds=15.0)
        daemon.wait(lambda: running(daemon), what="progress")
        daemon.notices.clear()
        daemon.configure({"output": {"formats": ["srt"]}, **change})
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait(lambda: "READY=1" in daemon.notices, what="READY=1 after the refusal")
        tone(root / "inbox/b.wav")
        daemon.wait(lambda: daemon.status("b.wav") == daemon.status("a.wav") == "completed", what="the transcripts")

        assert "RELOADING=1" in daemon.notices
        assert daemon.workers() == workers
        assert [daemon.sidecar(name)["attempts"] for name in ("a.wav", "b.wav")] == [1, 1]
        assert sorted(daemon.sidecar("b.wav")["outputs"]) == ["json", "txt"]
        (line,) = daemon.errors()
        assert "the new configuration is refused, the old one stays: " in line
        assert reason in line
        assert any("the new configuration is refused: " in notice for notice in daemon.notices)
        assert daemon.stop() == 0


@pytest.mark.model
def test_reload_to_a_device_that_is_not_there_is_refused(root):
    """`device: cuda` without a card used to be said to be in use, and ended the service with exit status 3."""
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    with Daemon(root) as daemon:
        daemon.wait_ready()
        workers = daemon.workers()
        daemon.configure({"engine": "openai-whisper", "device": "cuda"})
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait(lambda: daemon.logged("is refused, the old one stays"), within_seconds=60.0, what="the refusal")

        assert daemon.logged("cuda")
        daemon.wait(lambda: daemon.workers() == workers, what="the end of the worker that was tried")
        assert daemon.stop() == 0


def test_a_second_reload_replaces_the_trial_of_the_first(root):
    """Only what the file says in the end counts, and the worker that was being tried ends."""
    with Daemon(root) as daemon:
        daemon.wait_ready()
        daemon.configure({"script": "boot:hang"})
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait(lambda: len(daemon.workers()) == 2, what="a worker that tries the new engine")
        (_, trial) = daemon.workers()
        daemon.configure({"script": "ok,ok", "output": {"formats": ["srt"]}})
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait(lambda: daemon.logged("the new configuration is in use"), what="the reload")
        daemon.wait(lambda: not Path(f"/proc/{trial}").exists(), what="the end of the first trial")
        tone(root / "inbox/a.wav")
        daemon.wait(lambda: daemon.status("a.wav") == "completed", what="the transcript")

        assert sorted(daemon.sidecar("a.wav")["outputs"]) == ["srt"]
        assert daemon.stop() == 0
        assert daemon.errors() == []


def test_stop_does_not_wait_for_a_trial(root):
    """A model that takes minutes to load must not delay the end of an idle service."""
    with Daemon(root) as daemon:
        daemon.wait_ready()
        daemon.configure({"script": "boot:hang"})
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait(lambda: len(daemon.workers()) == 2, what="a worker that tries the new engine")
        workers = daemon.workers()

        assert daemon.stop(within_seconds=5.0) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_the_status_line_says_what_it_is_doing(root):
    """ASCII, one line: who runs and how far, how many wait, are done, have failed."""
    with Daemon(root, {"script": "slow:0.5"}) as daemon:
        daemon.wait_ready()
        tone(root / "inbox/größe.wav", seconds=20.0)
        daemon.wait(
            lambda: any("STATUS=1 running (gr\\xf6\\xdfe.wav" in notice for notice in daemon.notices), what="the status"
        )
        for name in ("b.wav", "c.wav"):
            tone(root / f"inbox/{name}")

        daemon.wait(
            lambda: any(", 2 queued, 0 done, 0 failed" in notice for notice in daemon.notices), what="the queue"
        )
        daemon.stop(signal.SIGQUIT)


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_the_privilege_of_the_daemon_is_not_handed_on(root, tmp_path):
    """CAP_LEASE, which systemd gives as an ambient capability, stays with the supervisor: no worker, ffmpeg or command has it."""
    told = {name: tmp_path / name for name in ("ffmpeg", "hook")}
    for name, then in {"ffmpeg": f'exec {find_ffmpeg(None)} "$@"', "hook": ""}.items():
        script = tmp_path / f"{name}.sh"
        script.write_text(f"#!/bin/sh\n[ -e {told[name]} ] || cat /proc/self/status >{told[name]}\n{then}\n")
        script.chmod(0o755)
    lease = ["--inh-caps=+lease", "--ambient-caps=+lease", "--bounding-set=-all,+lease", "--securebits=+noroot"]
    settings = {"media": {"ffmpeg": f"{tmp_path}/ffmpeg.sh"}, "notices": {"on_completed": [f"{tmp_path}/hook.sh"]}}
    with Daemon(root, settings, prefix=("setpriv", *lease)) as daemon:
        daemon.wait_ready()
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in daemon.workers()]
        own = capabilities(Path(f"/proc/{daemon.process.pid}/status").read_text())
        tone(root / "inbox/a.wav")
        daemon.wait(lambda: told["hook"].exists() and told["hook"].stat().st_size, what="the hook")
        statuses += [path.read_text() for path in told.values()]

        assert own["CapEff"] == own["CapPrm"] == 1 << CAP_LEASE
        sets = [capabilities(status) for status in statuses]
        assert [(each["CapEff"], each["CapPrm"], each["CapAmb"]) for each in sets] == [(0, 0, 0)] * 3
        daemon.stop()


def test_a_service_with_a_high_nice_value_transcribes(root):
    """As with `Nice=11` in a drop-in: no privilege is needed to prepare a recording at a lower priority than the daemon's."""
    unprivileged = ("setpriv", "--bounding-set", "-all") if os.geteuid() == 0 else ()
    prefix = (*unprivileged, "nice", "-n", str(11 - os.nice(0)))
    with Daemon(root, {"script": "windows,ok", "vad": {"enabled": False}}, prefix=prefix) as daemon:
        daemon.wait_ready()
        tone(root / "inbox/a.wav")
        daemon.wait(lambda: daemon.status("a.wav") == "completed", what="the transcript")

        assert os.getpriority(os.PRIO_PROCESS, daemon.process.pid) == 11
        assert daemon.sidecar("a.wav")["attempts"] == 1
        daemon.stop()


def capabilities(status):
    """The sets of capabilities in /proc/pid/status (proc(5))."""
    lines = [line.split(":") for line in status.splitlines() if line.startswith("Cap")]
    return {name: int(value, 16) for name, value in lines}


def test_the_watchdog_is_fed_by_the_loop(root):
    """WATCHDOG=1 comes while it works, and stops when the loop is stopped."""
    with Daemon(root) as daemon:
        daemon.wait_ready()
        daemon.wait(lambda: daemon.notices.count("WATCHDOG=1") >= 2, what="two pings")
        daemon.process.send_signal(signal.SIGSTOP)
        before = daemon.notices.count("WATCHDOG=1")
        with pytest.raises(AssertionError, match="a ping"):
            daemon.wait(lambda: daemon.notices.count("WATCHDOG=1") > before + 1, within_seconds=3.0, what="a ping")
        daemon.process.send_signal(signal.SIGCONT)
        daemon.wait(lambda: daemon.notices.count("WATCHDOG=1") > before + 1, what="pings again")

        assert daemon.stop() == 0


def test_progress_is_real_and_never_goes_back(root):
    """0-100, in audio seconds, with speed and time left."""
    with Daemon(root, {"script": "slow:0.3"}) as daemon:
        daemon.wait_ready()
        tone(root / "inbox/a.wav", seconds=10.0)
        seen = []

        def completed():
            document = daemon.sidecar("a.wav")
            if document:
                seen.append(document)
            return document and document["status"] == "completed"

        daemon.wait(completed, what="the transcript")
        percents = [document["progress"] for document in seen]
        between = [document for document in seen if 0 < document["progress"] < 100]
        assert percents == sorted(percents)
        assert len({document["progress"] for document in between}) >= 2
        assert all(document["progress"] == round(document["processed_seconds"] * 10, 1) for document in between)
        assert all(2.0 < document["speed"] < 5.0 for document in between[1:])
        assert {document["phase"] for document in seen} >= {"transcribing", "ended"}
        daemon.stop()


def test_the_queue_is_bounded_and_the_rest_waits_in_the_inbox(root):
    """What exceeds queue_size is not claimed; every file is done in the end."""
    with Daemon(root, {"script": "slow:0.3", "pool": {"queue_size": 2}}) as daemon:
        daemon.wait_ready()
        for number in range(8):
            tone(root / f"inbox/{number}.wav", frequency=200.0 + number)
        daemon.wait(lambda: len(originals(root)[".work"]) == 3, what="one running and two queued")
        most = []

        def all_done():
            rooms = originals(root)
            most.append(len(rooms[".work"]))
            return len(rooms["done"]) == 8

        daemon.wait(all_done, what="all transcripts")
        assert max(most) <= 4  # one running, two queued, one being retired while the listing was read
        daemon.stop()


def test_folders_take_turns(root):
    """Somebody who drops many files does not hold up another who drops one."""
    with Daemon(root, {"script": "slow:1", "pool": {"queue_size": 3}}) as daemon:
        for number in range(10):
            tone(root / f"inbox/many/{number:02}.wav", frequency=200.0 + number)
        tone(root / "inbox/one/a.wav")
        daemon.wait(lambda: daemon.status("one/a.wav") == "completed", what="the one")

        assert len(originals(root)["done"]) <= 6
        daemon.stop(signal.SIGQUIT)


def test_once_ends_when_all_is_done(root):
    """`run --once` works off the inbox and exits: 0, or 1 if a file failed."""
    for number in range(3):
        tone(root / f"inbox/{number}.wav")
    with Daemon(root, once=True) as daemon:
        assert daemon.wait_exit() == 0
        (root / "inbox/bad.mp3").write_text("no music")
        daemon.start()
        assert daemon.wait_exit() == 1

        assert len(originals(root)["done"]) == 3
        assert daemon.sidecar("bad.mp3")["error"]["code"] == "not_media"


def test_several_workers_share_the_work(root):
    """`pool.workers` processes, each with a job of its own at the same time."""
    with Daemon(root, {"script": "slow:0.5", "pool": {"workers": 2}}) as daemon:
        daemon.wait_ready()
        for name in ("a.wav", "b.wav"):
            tone(root / f"inbox/{name}", seconds=6.0)

        daemon.wait(lambda: running(daemon, "a.wav") and running(daemon, "b.wav"), what="both at once")
        daemon.wait(lambda: daemon.status("a.wav") == daemon.status("b.wav") == "completed", what="both transcripts")
        daemon.stop()


def test_suspects_run_alone_after_a_crash(root):
    """Of several jobs in flight when the daemon died, only the guilty one is blamed: they run one at a time."""
    with Daemon(root, {"script": "slow:0.5", "pool": {"workers": 2}}) as daemon:
        daemon.wait_ready()
        for name in ("a.wav", "b.wav"):
            tone(root / f"inbox/{name}", seconds=6.0)
        daemon.wait(lambda: running(daemon, "a.wav") and running(daemon, "b.wav"), what="both at once")
        daemon.kill()
        together = []

        def both_done():
            names = [name for name in ("a.wav", "b.wav") if (daemon.sidecar(name) or {}).get("status") == "in_progress"]
            together.append(len(names))
            return daemon.status("a.wav") == daemon.status("b.wav") == "completed"

        daemon.start()
        daemon.wait_ready()
        daemon.wait(both_done, what="both transcripts")
        # a sidecar left by the dead daemon says in_progress until the new one, READY, has rewritten it
        assert max(together) == 1
        daemon.stop()
