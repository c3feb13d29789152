"""A daemon on a machine with several GPUs, played by the scripted engine: one that fails is left out, and its jobs go to others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from support.daemon import Daemon, tone
from support.invariants import check_spool


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def gpus(tmp_path):
    """How each GPU behaves: a file with its name says so."""
    folder = tmp_path / "gpus"
    folder.mkdir()
    return folder


def settings(gpus, **changes):
    script = f"devices:2,@{gpus}/{{device}}"
    return {"script": script, "vad": {"enabled": False}, "pool": {"retry_seconds": 0.1, "max_attempts": 1}, **changes}


def uploads(root, names, seconds=1.0):
    return {
        f"{name}.wav": tone(root / f"inbox/{name}.wav", seconds, frequency=200.0 + 10 * number).read_bytes()
        for number, name in enumerate(names)
    }


def report(daemon):
    command = [sys.executable, "-m", "whisperd", "status", "--json", "--config", str(daemon.config)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["devices"]


def devices_of(daemon, sent):
    return {daemon.sidecar(name)["device"] for name in sent}


def test_every_gpu_gets_a_worker_and_jobs(root, gpus):
    """The status file names the device."""
    for name in ("cuda:0", "cuda:1"):
        (gpus / name).write_text("slow:0.3")
    with Daemon(root, settings(gpus), once=True) as daemon:
        sent = uploads(root, "abcdef")
        assert daemon.wait_exit(60.0) == 0

        assert devices_of(daemon, sent) == {"cuda:0", "cuda:1"}


@pytest.mark.parametrize("action", ["exit:9", "raise:oom"])
def test_a_gpu_that_ends_every_worker_costs_no_upload_an_attempt(root, gpus, action):
    """As one that has fallen off the bus, or whose memory another program holds. It is out of service, which STATUS and the journal say, and comes back by itself once it works."""
    (gpus / "cuda:1").write_text(action)
    with Daemon(root, settings(gpus)) as daemon:
        daemon.wait_ready()
        sent = {}
        for number in range(50):  # its worker may start after the other one has done everything
            sent |= uploads(root, [f"{name}-{number}" for name in "abcdefgh"])
            daemon.wait(
                lambda sent=sent: all(daemon.status(name) == "completed" for name in sent),
                within_seconds=60.0,
                what="the transcripts",
            )
            if daemon.logged("device cuda:1 is out of service"):
                break
        daemon.wait(lambda: any("cuda:1 is out of service" in each for each in daemon.notices), what="the STATUS")
        shown = report(daemon)
        assert [each["name"] for each in shown if each["reason"]] == ["cuda:1"]
        assert devices_of(daemon, sent) == {"cuda:0"}
        assert [daemon.sidecar(name)["attempts"] for name in sent] == [1] * len(sent)
        (gpus / "cuda:1").write_text("ok")
        (gpus / "cuda:0").write_text("slow:0.5")
        for number in range(50):
            more = uploads(root, [f"more-{number}-{each}" for each in range(3)])
            daemon.wait(lambda more=more: all(daemon.status(name) == "completed" for name in more), what="more")
            sent |= more
            if "cuda:1" in devices_of(daemon, more):
                break
        daemon.wait(lambda: daemon.logged("device cuda:1 is in service again"), what="its return")

        assert daemon.stop() == 0
        assert check_spool(root, sent) == []


def test_the_only_device_costs_nobody_an_attempt_either(root, tmp_path):
    """A driver that broke every fresh worker used to fail every upload; now they wait until it is repaired."""
    script = tmp_path / "script"
    script.write_text("exit:9")
    with Daemon(root, {"script": f"@{script}", "pool": {"retry_seconds": 0.1, "max_attempts": 1}}) as daemon:
        daemon.wait_ready()
        sent = uploads(root, "abcd")
        daemon.wait(lambda: daemon.logged("device cpu is out of service, a worker cannot be used"), what="the verdict")
        daemon.wait(lambda: any("cpu is out of service" in each for each in daemon.notices), what="the STATUS")
        script.write_text("ok")
        daemon.wait(lambda sent=sent: all(daemon.status(name) == "completed" for name in sent), what="the transcripts")

        assert [daemon.sidecar(name)["attempts"] for name in sent] == [1] * len(sent)
        daemon.wait(lambda: daemon.logged("device cpu is in service again"), what="its return")
        assert daemon.stop() == 0
        assert check_spool(root, sent) == []


def test_a_gpu_that_cannot_be_loaded_does_not_keep_the_others(root, gpus):
    """At the start as later; where none can, the daemon does not start."""
    (gpus / "cuda:0").write_text("boot:fail")
    with Daemon(root, settings(gpus)) as daemon:
        daemon.wait_ready()
        sent = uploads(root, "ab")
        daemon.wait(lambda sent=sent: all(daemon.status(name) == "completed" for name in sent), what="the transcripts")

        assert devices_of(daemon, sent) == {"cuda:1"}
        assert daemon.logged("device cuda:0 is out of service, a worker cannot be used: the engine does not start")
        (gpus / "cuda:0").write_text("ok")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait(lambda: daemon.logged("device cuda:0 is in service again"), what="its return")
        daemon.wait(lambda: len(daemon.workers()) == 2, what="two workers and nothing else")
        assert daemon.stop() == 0

    for name in ("cuda:0", "cuda:1"):
        (gpus / name).write_text("boot:fail")
    with Daemon(root, settings(gpus)) as daemon:
        assert daemon.wait_exit() == 3


def test_a_list_names_the_devices(root, gpus):
    """Workers run there and nowhere else; a reload may name others, whose engine is tried first."""
    with Daemon(root, settings(gpus, device=["cuda:1"])) as daemon:
        daemon.wait_ready()
        first = uploads(root, "a")
        daemon.wait(lambda: daemon.status("a.wav") == "completed", what="a")
        daemon.configure({"device": ["cuda:0"]})
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait(lambda: daemon.logged("the new configuration is in use"), what="the reload")
        daemon.wait(lambda: len(daemon.workers()) == 1, what="the end of the old worker")
        second = uploads(root, "b")
        daemon.wait(lambda: daemon.status("b.wav") == "completed", what="b")

        assert (devices_of(daemon, first), devices_of(daemon, second)) == ({"cuda:1"}, {"cuda:0"})
        assert os.listdir(root / "failed") == []
        assert daemon.stop() == 0
