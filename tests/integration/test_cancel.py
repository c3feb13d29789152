"""Control by files with a real daemon: `X.cancel` in the inbox ends X wherever it is, and moving it back retries."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from support.daemon import Daemon, originals, tone
from support.tiny_model import tiny_model

from whisperd.intake.cancel_requests import BYTES_MAX, TOO_LARGE

SLOW = {"script": "slow:1"}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


def cancel(daemon, name):
    """What a person with a share does: make an empty file there."""
    (daemon.inbox / f"{name}.cancel").touch()


def phase(daemon, name):
    return (daemon.sidecar(name) or {}).get("phase")


def wait_cancelled(daemon, name):
    """Wait for the whole of the end of a cancelled job; returns its sidecar."""
    daemon.wait(lambda: daemon.status(name) == "failed", what=f"the end of {name}")
    daemon.wait((daemon.failed / name).exists, what="the original in failed/")
    daemon.wait(lambda: not list(daemon.inbox.rglob("*.cancel")), what="the end of the request")
    document = daemon.sidecar(name)
    assert document["error"]["code"] == "cancelled"
    assert document["error"]["retryable"] is False
    assert f"cancelled by {name}.cancel, a file of user {os.getuid()}" in document["error"]["message"]
    return document


def test_a_running_job_and_one_that_is_queued(root):
    """Both end in failed/, the worker stays, the job behind them is done; nobody has to wait for a grace time."""
    with Daemon(root, SLOW) as daemon:
        daemon.wait_ready()
        workers = daemon.workers()
        for name in ("sub/a.wav", "b.wav"):
            tone(daemon.inbox / name, seconds=60.0)
            daemon.wait(lambda name=name: daemon.sidecar(name), what="the claim")
        tone(daemon.inbox / "c.wav", seconds=0.3)
        daemon.wait(lambda: phase(daemon, "sub/a.wav") == "transcribing", what="the start")
        daemon.wait(lambda: phase(daemon, "b.wav") == "queued", what="the queue")
        cancel(daemon, "b.wav")
        cancel(daemon, "sub/a.wav")
        documents = [wait_cancelled(daemon, name) for name in ("sub/a.wav", "b.wav")]
        daemon.wait(lambda: daemon.status("c.wav") == "completed", what="the job behind them")

        assert [document["attempts"] for document in documents] == [1, 0]
        assert daemon.workers() == workers
        assert daemon.logged("sub/a.wav: cancelled by sub/a.wav.cancel")
        assert daemon.errors() == []
        assert daemon.stop() == 0
    assert {room: len(found) for room, found in originals(root).items()} == {
        "inbox": 0, ".work": 0, "done": 1, "failed": 2,
    }  # fmt: skip


def test_a_worker_that_does_not_let_go_is_stopped(root):
    """It has no other job, so nobody is harmed; the cancelled one is not tried again."""
    with Daemon(root, {"script": "hang"}) as daemon:
        daemon.wait_ready()
        tone(daemon.inbox / "a.wav")
        daemon.wait(lambda: phase(daemon, "a.wav") == "transcribing", what="the start")
        cancel(daemon, "a.wav")
        daemon.wait(lambda: "cancelled by" in (daemon.sidecar("a.wav")["reason"] or ""), what="the word of it")
        wait_cancelled(daemon, "a.wav")

        assert daemon.logged("SIGABRT")
        daemon.stop()


def test_killed_between_the_request_and_the_end_it_still_holds(root):
    """The request is gone, the worker has not answered, the daemon dies: the next one transcribes nothing."""
    with Daemon(root, {"script": "hang"}) as daemon:
        daemon.wait_ready()
        tone(daemon.inbox / "a.wav")
        daemon.wait(lambda: phase(daemon, "a.wav") == "transcribing", what="the start")
        cancel(daemon, "a.wav")
        daemon.wait(lambda: not (daemon.inbox / "a.wav.cancel").exists(), what="the end of the request")
        assert daemon.status("a.wav") == "in_progress"
        daemon.kill()
        daemon.configure({"script": "ok"})
        daemon.start()
        wait_cancelled(daemon, "a.wav")
        daemon.stop()

    assert not (root / "outbox/a.txt").exists()


def test_an_upload_that_waits_and_one_that_is_not_complete(root):
    """Neither a full queue nor a missing rest keeps them; one that somebody writes to is left until he has closed it."""
    settings = {"script": "hang", "pool": {"queue_size": 1}, "intake": {"truncated_seconds": 3600.0}}
    with Daemon(root, settings) as daemon:
        daemon.wait_ready()
        for name in ("running.wav", "queued.wav"):
            tone(daemon.inbox / name)
            daemon.wait(lambda name=name: daemon.sidecar(name), what="the claim")
        tone(daemon.inbox / "behind.wav")
        (daemon.inbox / "half.wav").write_bytes(tone(root / "whole.wav").read_bytes()[:9999])
        cancel(daemon, "behind.wav")
        cancel(daemon, "half.wav")
        for name in ("behind.wav", "half.wav"):
            assert wait_cancelled(daemon, name)["attempts"] == 0
        with (daemon.inbox / "open.wav").open("wb") as file:
            cancel(daemon, "open.wav")
            daemon.wait(lambda: daemon.sidecar("open.wav.cancel"), what="the note")
            assert daemon.sidecar("open.wav.cancel")["reason"] == "cancelled once nobody writes to it any more"
            file.write(b"the rest")
        wait_cancelled(daemon, "open.wav")

        assert (daemon.failed / "open.wav").read_bytes() == b"the rest"
        daemon.wait(lambda: not daemon.sidecar("open.wav.cancel"), what="the end of the note")


def test_moved_back_by_hand_it_is_transcribed_after_all(root):
    """Under its plain name: the sidecar of the cancelled one speaks of nothing any more."""
    with Daemon(root, {"intake": {"settle_seconds": 20.0, "settle_seconds_proven": 20.0}}) as daemon:
        daemon.wait_ready()
        tone(daemon.inbox / "a.wav")
        cancel(daemon, "a.wav")
        wait_cancelled(daemon, "a.wav")
        daemon.stop()
        daemon.configure({"intake": {"settle_seconds": 0.2, "settle_seconds_proven": 0.1}})
        daemon.start()
        daemon.wait_ready()
        (daemon.failed / "a.wav").rename(daemon.inbox / "a.wav")
        daemon.wait(lambda: daemon.status("a.wav") == "completed", what="the transcript")
        daemon.stop()

    left = sorted(path.name for path in (root / "outbox").iterdir())
    assert left == ["a.json", "a.txt", "a.wav.status.json", "index.html"]


def test_a_request_for_nothing_known_is_explained(root):
    """So is a recording whose name was changed to that of a request: it is never removed."""
    with Daemon(root) as daemon:
        daemon.wait_ready()
        cancel(daemon, "none.wav")
        (daemon.inbox / "a.wav.cancel").write_bytes(bytes(BYTES_MAX + 1))
        daemon.wait(lambda: daemon.sidecar("none.wav.cancel"), what="the note")
        daemon.wait(lambda: daemon.sidecar("a.wav.cancel"), what="the other note")

        note = daemon.sidecar("none.wav.cancel")
        assert note["reason"] == "nothing called none.wav waits or runs; this request is removed after 60 s"
        assert daemon.sidecar("a.wav.cancel")["reason"] == TOO_LARGE
        assert daemon.stop() == 0
    assert len((root / "inbox/a.wav.cancel").read_bytes()) > BYTES_MAX


def test_one_job_of_a_batched_worker(root, tmp_path):
    """The worker and its other job go on; that one loses neither its attempt nor a window."""
    torch.save(checkpoint(tiny_model(audio_context=1500, text_context=448)), tmp_path / "tiny.pt")
    settings = {
        "engine": "openai-whisper",
        "model": str(tmp_path / "tiny.pt"),
        "decoding": "batched",
        "batch_size": 1,
        "vad": {"enabled": False},
        "transcription": {"language": "en", "temperature": [0]},
        "pool": {"jobs_per_worker": 2},
    }
    with Daemon(root, settings) as daemon:
        daemon.wait(lambda: "READY=1" in daemon.notices, within_seconds=120, what="READY=1")
        workers = daemon.workers()
        for name, minutes in (("a", 60), ("b", 1)):
            noise = np.random.default_rng(minutes).normal(0, 3000, minutes * 60 * 16_000).astype(np.int16)
            soundfile.write(tmp_path / f"{name}.wav", noise, 16_000)
            (tmp_path / f"{name}.wav").rename(daemon.inbox / f"{name}.wav")
        for name in ("a.wav", "b.wav"):
            daemon.wait(
                lambda name=name: (daemon.sidecar(name) or {}).get("progress", 0) > 0,
                within_seconds=120,
                what="progress",
            )
        cancel(daemon, "a.wav")
        wait_cancelled(daemon, "a.wav")
        daemon.wait(lambda: daemon.status("b.wav") == "completed", within_seconds=120, what="the other job")

        assert daemon.sidecar("b.wav")["attempts"] == 1
        assert daemon.sidecar("b.wav")["quality"]["resumed_windows"] == 0
        assert daemon.workers() == workers
        daemon.stop()


def checkpoint(model):
    """As openai-whisper stores one."""
    return {"dims": vars(model.dims), "model_state_dict": model.state_dict()}


def whisperd(root, *arguments, code=0):
    command = [sys.executable, "-m", "whisperd", arguments[0], "--config", f"{root}.yaml", *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_the_command_makes_the_same_file(root):
    """Also for a job that got a number, by either name; what has ended or never was is said, and nothing is made."""
    with Daemon(root, {"script": "ok,slow:1"}) as daemon:
        daemon.wait_ready()
        tone(daemon.inbox / "a.wav")
        daemon.wait(lambda: daemon.status("a.wav") == "completed", what="the first")
        daemon.wait((daemon.done / "a.wav").exists, what="its original in done/")
        assert "nothing of that name" in whisperd(root, "cancel", "a.wav", "../a.wav", code=1)
        assert not list(root.rglob("*.cancel"))
        tone(daemon.inbox / "a.wav", seconds=60.0)
        daemon.wait(lambda: phase(daemon, "a-2.wav") == "transcribing", what="the second of its name")
        said = whisperd(root, "cancel", "a.wav")
        daemon.wait(lambda: daemon.status("a-2.wav") == "failed", what="the end")
        daemon.stop()
        tone(daemon.inbox / "b.wav")
        whisperd(root, "cancel", "inbox/b.wav")

    assert "a.wav: cancellation requested, by a.wav.cancel in the inbox" in said
    assert (root / "inbox/b.wav.cancel").read_bytes() == b""


def test_retry_takes_an_old_request_away(root):
    """A daemon that was killed may have left it; it must not end the job again."""
    for room in ("inbox", "outbox", "done", "failed", ".work/.staging"):
        (root / room).mkdir(parents=True)
    tone(root / "failed/a.wav")
    (root / "inbox/a.wav.cancel").touch()
    Daemon(root)  # writes the configuration
    whisperd(root, "retry", "a.wav")

    assert [path.name for path in (root / "inbox").iterdir()] == ["a.wav"]
