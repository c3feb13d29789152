"""The text so far with the real model, from the windows to the outbox."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.daemon import Daemon

import whisperd

pytestmark = pytest.mark.model

SAMPLE = Path(whisperd.__file__).parent / "samples/jfk.ogg"
SETTINGS = {
    "engine": "openai-whisper",
    "model": "tiny.en",
    "device": "cpu",
    "decoding": "batched",
    "batch_size": 1,
    "transcription": {"language": "en"},
    "output": {"partial": True},
}


def test_what_is_read_meanwhile_is_the_beginning_of_the_transcript(tmp_path):
    """In the end the transcript stands alone."""
    voice, rate = soundfile.read(SAMPLE, dtype="int16")
    soundfile.write(tmp_path / "a.flac", np.tile(np.concatenate([voice, np.zeros(2 * rate, np.int16)]), 10), rate)
    with Daemon(tmp_path / "spool", SETTINGS) as daemon:
        path = daemon.outbox / "a.partial.txt"
        daemon.wait(lambda: "READY=1" in daemon.notices, within_seconds=180, what="READY=1")
        (tmp_path / "a.flac").rename(daemon.inbox / "a.flac")
        text = daemon.wait(lambda: path.exists() and path.read_text(), within_seconds=120, what="the first words")
        daemon.wait(lambda: daemon.status("a.flac") == "completed", within_seconds=240, what="the transcript")

        whole = (daemon.outbox / "a.txt").read_text()
        assert text.strip()
        assert " ".join(whole.split()).startswith(" ".join(text.split()))  # lines then, paragraphs now
        assert len(text) < len(whole)
        assert not path.exists()
        daemon.stop()
