"""Several languages in one recording with the real model `base`, from the inbox to json, page and status file."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from pytest_audioeval.samples.registry import SampleRegistry
from support.daemon import Daemon

pytestmark = [pytest.mark.model, pytest.mark.timeout(400)]

SETTINGS = {
    "engine": "openai-whisper",
    "model": "base",
    "device": "cpu",
    "decoding": "batched",
    "compute_type": "int8",
    "pool": {"threads": 2},
    "output": {"formats": ["txt", "json", "html"]},
}
ORDER = ("en", "fr", "ja", "zh")
RATE = 16_000


def recording(path, part_seconds=12):
    """Clips of one language after the other, about so many seconds of each; returns where each language ends."""
    clips = {}
    for sample in sorted(SampleRegistry().all(), key=lambda sample: sample.name):
        clips.setdefault(str(sample.lang), []).append(sample.audio_numpy())
    pieces, ends, at = [], [], 0
    for language in ORDER:
        start, number = at, 0
        while at - start < part_seconds * RATE:
            clip = clips[language][number % len(clips[language])]
            pieces += [clip, np.zeros(RATE * 2 // 5, np.float32)]
            at += len(clip) + len(pieces[-1])
            number += 1
        ends.append(at / RATE)
    soundfile.write(path, np.concatenate(pieces), RATE)
    return ends


def test_no_language_is_lost(tmp_path):
    """Four languages of a dozen seconds each, in windows of half a minute: each is transcribed as itself."""
    ends = recording(tmp_path / "a.flac")
    with Daemon(tmp_path / "spool", SETTINGS) as daemon:
        daemon.wait(lambda: "READY=1" in daemon.notices, within_seconds=180, what="READY=1")
        (tmp_path / "a.flac").rename(daemon.inbox / "a.flac")
        daemon.wait(lambda: daemon.status("a.flac") == "completed", within_seconds=240, what="the transcript")
        document = daemon.sidecar("a.flac")
        transcript = json.loads((daemon.outbox / "a.json").read_text("utf-8"))
        page = (daemon.outbox / "a.html").read_text("utf-8")
        daemon.stop()

    assert [part["language"] for part in document["languages"]] == list(ORDER)
    assert [part["to"] for part in document["languages"]] == pytest.approx(ends, abs=3.0)
    assert [part["language"] for part in transcript["languages"]] == list(ORDER)
    said = {
        language: "".join(s["text"] for s in transcript["segments"] if s["language"] == language) for language in ORDER
    }
    assert "brown fox" in said["en"]
    assert "Bonjour" in said["fr"]
    assert "こんにちは" in said["ja"]
    assert "你好" in said["zh"]
    assert all(f'lang="{language}"' in page for language in ORDER)
