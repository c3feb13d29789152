"""The text so far with a real daemon; the test plays the part of a worker that decodes windows, which the scripted one is not."""

from __future__ import annotations

import os
import signal

import pytest
from support.daemon import Daemon, tone

SETTINGS = {"script": "slow:1", "output": {"partial": True}}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


def start(daemon, seconds):
    """Upload `a/x.wav`; returns its directory once it is transcribed."""
    daemon.wait_ready()
    tone(daemon.inbox / "a/x.wav", seconds)
    daemon.wait(lambda: (daemon.sidecar("a/x.wav") or {}).get("phase") == "transcribing", what="the start")
    (directory,) = daemon.work.glob("[!.]*")
    return directory


def speak(daemon, directory, text):
    """Let the text reach a length, and wait until people can read it."""
    (directory / "partial.txt").write_text(text)
    path = daemon.outbox / "a/x.partial.txt"
    daemon.wait(lambda: path.exists() and path.read_text() == text, what=f"the text {text!r}")
    assert daemon.status("a/x.wav") == "in_progress"


def outbox(daemon):
    return sorted(path.name for path in (daemon.outbox / "a").iterdir())


def test_it_grows_while_the_job_is_in_progress_and_is_gone_when_it_is_completed(root):
    """With the mode that transcripts have; beside it stands a person's own file of that name, for another recording."""
    with Daemon(root, SETTINGS) as daemon:
        directory = start(daemon, 4.0)
        speak(daemon, directory, "one\n")
        speak(daemon, directory, "one\ntwo\n")
        mode = (daemon.outbox / "a/x.partial.txt").stat().st_mode
        (daemon.outbox / "a/y.partial.txt").write_text("mine")
        daemon.wait(lambda: daemon.status("a/x.wav") == "completed", what="the transcript")

        assert outbox(daemon) == ["x.json", "x.txt", "x.wav.status.json", "y.partial.txt"]
        assert (daemon.outbox / "a/x.txt").stat().st_mode == mode
        daemon.configure({"script": "ok"})
        tone(daemon.inbox / "a/y.wav", 0.3)
        daemon.wait(lambda: daemon.status("a/y-2.wav") == "completed", what="the other recording")
        assert (daemon.outbox / "a/y.partial.txt").read_text() == "mine"
        assert daemon.errors() == []
        assert daemon.stop() == 0


@pytest.mark.parametrize("end", ["cancelled", "failed", "stopped"])
def test_it_is_gone_when_the_job_ends_otherwise(root, end):
    """Cancelled; failed, by a worker that dies; or put back into the queue as the daemon stops."""
    settings = SETTINGS | {"pool": {"max_attempts": 1, "stop_grace_seconds": 0.0}}
    with Daemon(root, settings) as daemon:
        speak(daemon, start(daemon, 60.0), "one\n")
        if end == "cancelled":
            (daemon.inbox / "a/x.wav.cancel").touch()
        elif end == "failed":
            (worker,) = daemon.workers()
            os.kill(worker, signal.SIGKILL)
        else:
            assert daemon.stop() == 0
            assert outbox(daemon) == ["x.wav.status.json"]
            return
        daemon.wait(lambda: daemon.status("a/x.wav") == "failed", what="the end")

        assert outbox(daemon) == ["x.wav.status.json"]
        daemon.stop()


def test_a_daemon_killed_midway_leaves_nothing_stale(root):
    """The next one removes it before the job goes on; what a person has put in its place meanwhile stays."""
    with Daemon(root, SETTINGS | {"pool": {"max_attempts": 9}}) as daemon:
        speak(daemon, start(daemon, 60.0), "one\n")
        daemon.kill()
        daemon.start()
        daemon.wait_ready()
        daemon.wait(lambda: outbox(daemon) == ["x.wav.status.json"], what="its removal")
        (directory,) = daemon.work.glob("[!.]*")
        daemon.wait(lambda: (daemon.sidecar("a/x.wav") or {}).get("attempts") == 2, what="the second attempt")
        speak(daemon, directory, "one\ntwo\n")
        daemon.kill()
        (daemon.outbox / "a/x.partial.txt").write_text("mine\n")
        daemon.start()
        daemon.wait(lambda: (daemon.sidecar("a/x.wav") or {}).get("attempts") == 3, what="the third attempt")
        (daemon.inbox / "a/x.wav.cancel").touch()
        daemon.wait(lambda: daemon.status("a/x.wav") == "failed", what="the end")

        assert (daemon.outbox / "a/x.partial.txt").read_text() == "mine\n"
        daemon.stop()
