"""Batched decoding with the real model: a job that was killed in the middle goes on, and nobody can tell from the result."""

from __future__ import annotations

import json
import os
import signal
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.daemon import Daemon

import whisperd

pytestmark = pytest.mark.model

SAMPLE = Path(whisperd.__file__).parent / "samples/jfk.ogg"
BATCHED = {
    "engine": "openai-whisper",
    "decoding": "batched",
    "batch_size": 2,
    "pool": {"threads": 2},
    "output": {"formats": ["txt", "srt", "json"]},
}


def speech(path, times):
    """A recording of human speech, said several times with pauses of different length."""
    voice, rate = soundfile.read(SAMPLE, dtype="int16")
    pieces = []
    for number in range(times):
        pieces += [voice, np.zeros(rate * (1 + number % 5), np.int16)]
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(np.concatenate(pieces).tobytes())
    return path


def transcribe(root, recording, victim=None):
    """Sidecar and outputs of a recording; in the middle of it the worker or the supervisor is killed."""
    with Daemon(root, BATCHED) as daemon:
        daemon.wait(lambda: "READY=1" in daemon.notices, within_seconds=180, what="READY=1")
        recording.rename(daemon.inbox / "a.wav")
        if victim:
            daemon.wait(
                lambda: (daemon.sidecar("a.wav") or {}).get("progress", 0) > 30,
                within_seconds=240,
                what="a third of the work",
            )
        if victim == "worker":
            os.kill(daemon.workers()[0], signal.SIGKILL)
        elif victim == "supervisor":
            daemon.kill()
            daemon.start()
        daemon.wait(lambda: daemon.status("a.wav") == "completed", within_seconds=300, what="the transcript")
        daemon.stop()
        outputs = {path.name: path.read_bytes() for path in daemon.outbox.glob("a.[tsj]*")}
        document = daemon.sidecar("a.wav")
        # The one difference that must be: the json says when it was made.
        made_at = json.loads(outputs["a.json"])["recording"]["made_at"]
        outputs["a.json"] = outputs["a.json"].replace(made_at.encode(), b"")
        return document, outputs


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The outputs that a job has which nobody kills."""
    place = tmp_path_factory.mktemp("undisturbed")
    document, outputs = transcribe(place / "spool", speech(place / "a.wav", 8))
    assert document["attempts"] == 1
    return outputs


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", ["worker", "supervisor"])
def test_a_job_that_was_killed_goes_on_and_the_result_is_the_same(tmp_path, undisturbed, victim):
    """SIGKILL loses at most one batch: what was in the journal is not decoded again, and every output is byte-identical, but for the time in the json."""
    document, resumed = transcribe(tmp_path / "spool", speech(tmp_path / "a.wav", 8), victim)

    assert resumed == undisturbed
    assert document["attempts"] == 2
    assert document["quality"]["resumed_windows"] >= 1


def test_several_recordings_share_a_batch_and_keep_their_words(tmp_path):
    """Five at once, two of them silent or noise: nobody's words end up in another's transcript."""
    with Daemon(tmp_path / "spool", BATCHED | {"batch_size": 4}) as daemon:
        daemon.wait(lambda: "READY=1" in daemon.notices, within_seconds=180, what="READY=1")
        voice, rate = soundfile.read(SAMPLE, dtype="int16")
        half = len(voice) // 2
        pieces = {
            "whole": voice,
            "first": voice[:half],
            "second": voice[half:],
            "silence": np.zeros(rate * 4, np.int16),
        }
        for name, samples in pieces.items():
            soundfile.write(tmp_path / f"{name}.flac", samples, rate)
            (tmp_path / f"{name}.flac").rename(daemon.inbox / f"{name}.flac")
        daemon.wait(
            lambda: all(daemon.status(f"{name}.flac") == "completed" for name in pieces),
            within_seconds=240,
            what="all transcripts",
        )
        texts = {name: (daemon.outbox / f"{name}.txt").read_text().lower() for name in pieces}
        daemon.stop()

    assert "ask not" in texts["whole"]
    assert "for your country" in texts["whole"]
    assert "fellow americans" in texts["first"]
    assert "fellow" not in texts["second"]
    assert texts["silence"] == ""
