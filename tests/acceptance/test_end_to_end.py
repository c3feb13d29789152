"""A user's view: recordings of human speech dropped into a real daemon with the real model `base`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import jiwer
import pytest
from support.daemon import Daemon

import whisperd

pytestmark = pytest.mark.model

REAL = {
    "engine": "openai-whisper",
    "model": "base",
    "pool": {"threads": 2},
    "output": {"formats": ["txt", "srt", "vtt", "tsv", "json"]},
}
SAMPLE = Path(whisperd.__file__).parent / "samples/jfk.ogg"
KENNEDY = "and so my fellow americans ask not what your country can do for you ask what you can do for your country"


def plain(text):
    return " ".join(re.sub(r"[^\w\s]", "", text.lower()).split())


def test_a_recording_becomes_a_transcript_in_every_format(tmp_path):
    """Human voice, 11 s of Opus; sub-folder, mtime and content of the original are kept."""
    with Daemon(tmp_path / "spool", REAL) as daemon:
        daemon.wait(lambda: "READY=1" in daemon.notices, within_seconds=120.0, what="READY=1")
        (daemon.inbox / "kennedy").mkdir()
        subprocess.run(["cp", "-p", SAMPLE, daemon.inbox / "kennedy/speech.ogg"], check=True)
        daemon.wait(
            lambda: daemon.status("kennedy/speech.ogg") == "completed", within_seconds=120.0, what="the transcript"
        )
        daemon.wait((daemon.done / "kennedy/speech.ogg").exists, what="the original in done/")
        document = daemon.sidecar("kennedy/speech.ogg")
        assert daemon.stop() == 0

    out = tmp_path / "spool/outbox/kennedy"
    assert jiwer.wer(KENNEDY, plain((out / "speech.txt").read_text())) <= 0.05
    assert {path.suffix for path in out.iterdir()} == {".txt", ".srt", ".vtt", ".tsv", ".json"}
    assert re.search(r"^00:00:00,[0-4]\d\d --> 00:00:", (out / "speech.srt").read_text(), re.MULTILINE)
    assert (out / "speech.vtt").read_text().startswith("WEBVTT")
    assert document["language"] == "en"
    assert 10.9 < document["duration_seconds"] < 11.1
    done = tmp_path / "spool/done/kennedy/speech.ogg"
    assert done.read_bytes() == SAMPLE.read_bytes()
    assert done.stat().st_mtime_ns == SAMPLE.stat().st_mtime_ns


def test_the_demo_shows_a_transcript(tmp_path):
    """The first thing a new user does."""
    done = subprocess.run(
        [sys.executable, "-m", "whisperd", "demo"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "ask what you can do for your country" in done.stdout
    assert (tmp_path / "whisperd-demo/outbox/jfk.txt").exists()


def test_transcribe_without_a_daemon(tmp_path):
    """The same words, for a file that stays where it is."""
    command = [sys.executable, "-m", "whisperd", "transcribe", SAMPLE, "--formats", "txt", "--root", tmp_path / "none"]
    done = subprocess.run([*command, "--output-dir", tmp_path], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert jiwer.wer(KENNEDY, plain((tmp_path / "jfk.txt").read_text())) <= 0.05
