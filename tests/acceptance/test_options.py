"""Options with the real model `base`: a language that is set, a translation, two speakers on two channels."""

from __future__ import annotations

import re
import subprocess
import wave
from pathlib import Path

import imageio_ffmpeg
import jiwer
import pytest
from support.audio import encode
from support.daemon import Daemon
from support.voices import RATE, clip, kennedy

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
    first, second = (out / "calls/call.txt").read_text().split("\n\nBob: ")
    ann, bob = plain(first.removeprefix("Ann: ").replace("\n", " ")), plain(second)
    assert jiwer.wer(KENNEDY, ann) <= 0.1
    assert bob.startswith("and so my fellow americans")
    cues = (out / "calls/call.srt").read_text().strip().split("\n\n")
    assert all(len(line) <= 30 for cue in cues for line in cue.split("\n")[2:])
    starts = [cue.split("\n")[2][:5] for cue in cues]
    assert (starts[0], starts.count("Ann: "), starts.count("Bob: ")) == ("Ann: ", 1, 1)


def test_two_people_on_two_tracks_come_out_with_the_titles_of_their_tracks(tmp_path):
    """A recorder with a microphone for each: Kennedy, and a woman who speaks when he has ended; her track is shorter."""
    for name, samples in (("kennedy", kennedy(0, 11)), ("woman", clip("en", "quick_brown_fox"))):
        with wave.open(str(tmp_path / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(samples.tobytes())
    sources = ("-i", tmp_path / "kennedy.wav", "-i", tmp_path / "woman.wav", "-map", "1", "-map", "0", "-map", "1")
    late = ("-filter:a:0", "adelay=12s", "-filter:a:1", "apad=pad_dur=8", "-c:a", "aac", "-b:a", "96k")
    titles = ("-metadata:s:a:0", "title=Woman", "-metadata:s:a:1", "title=Kennedy", "-metadata:s:a:2", "title=Early")
    made = encode(tmp_path / "talk.mkv", *sources, *late, *titles)
    with Daemon(tmp_path / "spool", REAL) as daemon:
        daemon.wait(daemon.inbox.exists, what="the inbox")
        (daemon.inbox / "talk.mkv.yaml").write_text("tracks: all\nlanguage: en\n")
        (daemon.inbox / "talk.mkv").write_bytes(made.read_bytes())
        daemon.wait(lambda: daemon.status("talk.mkv") == "completed", within_seconds=120.0, what="talk.mkv")
        assert daemon.sidecar("talk.mkv")["duration_seconds"] == pytest.approx(19.0, abs=0.2)
        assert daemon.stop() == 0

    said = [each.partition(": ") for each in (tmp_path / "spool/outbox/talk.txt").read_text().strip().split("\n\n")]
    texts = {name: plain(text.replace("\n", " ")) for name, _, text in said}
    assert sorted(texts) == ["Early", "Kennedy", "Woman"]
    assert jiwer.wer(KENNEDY, texts["Kennedy"]) <= 0.1
    assert "brown fox" in texts["Early"]
    assert "brown fox" in texts["Woman"]
    cues = (tmp_path / "spool/outbox/talk.srt").read_text()
    assert cues.index("Early: ") < cues.index("Woman: ")
    assert cues.index("Kennedy: ") < cues.index("Woman: ")
