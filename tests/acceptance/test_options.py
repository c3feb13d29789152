"""Options with the real model `base`: a language that is set, a translation, two speakers on two channels."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import jiwer
import pytest
from support.daemon import Daemon

import whisperd

pytestmark = pytest.mark.model

SAMPLE = Path(whisperd.__file__).parent / "samples/jfk.ogg"
KENNEDY = "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
REAL = {
    "engine": "openai-whisper",
    "model": "base",
    "decoding": "batched",
    "pool": {"threads": 2},
    "output": {"formats": ["txt", "srt"]},
    "profiles": {
        "german/**": {"language": "de", "vad.enabled": False},
        "calls/**": {"channels": "split", "speakers": ["Ann", "Bob"], "max_line_width": 30, "max_line_count": 2},
    },
}


def plain(text):
    return re.sub(r"[^\w ]", "", text.lower()).strip()


def test_folders_and_tickets_change_what_the_model_writes(tmp_path):
    """Two speakers take turns on two channels; the same voice in a folder for German, and with a ticket against that."""
    call = tmp_path / "call.wav"
    # when Ann, on the left, has said it all, Bob says its first four seconds on the right
    filters = (
        "[0:a]aformat=channel_layouts=mono,asplit[a][b];[a]apad=pad_dur=4[l];[b]atrim=0:4,adelay=11s[r];[l][r]amerge"
    )
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", SAMPLE, "-filter_complex", filters, call]
    subprocess.run(command, check=True)
    with Daemon(tmp_path / "spool", REAL) as daemon:
        for folder in ("calls", "german"):
            (daemon.inbox / folder).mkdir(parents=True)
        (daemon.inbox / "german/english.ogg.yaml").write_text("language: en\nvocabulary: [Kennedy, Americans]\n")
        for name in ("german/english.ogg", "german/german.ogg"):
            (daemon.inbox / name).write_bytes(SAMPLE.read_bytes())
        (daemon.inbox / "calls/call.wav").write_bytes(call.read_bytes())
        names = ("calls/call.wav", "german/english.ogg", "german/german.ogg")
        for name in names:
            daemon.wait(lambda name=name: daemon.status(name) == "completed", within_seconds=120.0, what=name)
        assert [daemon.sidecar(name)["language"] for name in names] == ["en", "en", "de"]
        assert daemon.stop() == 0

    out = tmp_path / "spool/outbox"
    english = plain((out / "german/english.txt").read_text().replace("\n", " "))
    german = plain((out / "german/german.txt").read_text().replace("\n", " "))
    assert jiwer.wer(KENNEDY, english) <= 0.05
    assert german.startswith("und so")
    lines = (out / "calls/call.txt").read_text().splitlines()
    ann = plain(" ".join(line.removeprefix("Ann: ") for line in lines if line.startswith("Ann: ")))
    bob = plain(" ".join(line.removeprefix("Bob: ") for line in lines if line.startswith("Bob: ")))
    assert jiwer.wer(KENNEDY, ann) <= 0.1
    assert bob.startswith("and so my fellow americans")
    assert lines[-1].startswith("Bob: ")
    cues = (out / "calls/call.srt").read_text().strip().split("\n\n")
    assert all(len(line) <= 30 for cue in cues for line in cue.split("\n")[2:])
    assert all(cue.split("\n")[2].startswith(("Ann: ", "Bob: ")) for cue in cues)
