"""The text so far with the real model, from the windows to the outbox, over a crash."""

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
    "decoding": "batched",
    "batch_size": 1,
    "transcription": {"language": "en"},
    "output": {"partial": True},
}


def test_what_is_read_meanwhile_is_the_beginning_of_the_transcript(tmp_path):
    """Before and after the daemon was killed; in the end the transcript stands alone."""
    voice, rate = soundfile.read(SAMPLE, dtype="int16")
    soundfile.write(tmp_path / "a.flac", np.tile(np.concatenate([voice, np.zeros(2 * rate, np.int16)]), 24), rate)
    with Daemon(tmp_path / "spool", SETTINGS) as daemon:
        path = daemon.outbox / "a.partial.txt"
        daemon.wait(lambda: "READY=1" in daemon.notices, within_seconds=180, what="READY=1")
        (tmp_path / "a.flac").rename(daemon.inbox / "a.flac")
        seen = [daemon.wait(lambda: path.exists() and path.read_text(), within_seconds=120, what="the first words")]
        daemon.kill()
        daemon.start()
        seen += [daemon.wait(lambda: path.exists() and path.read_text(), within_seconds=180, what="the next words")]
        assert daemon.status("a.flac") == "in_progress"
        daemon.wait(lambda: daemon.status("a.flac") == "completed", within_seconds=240, what="the transcript")

        whole = (daemon.outbox / "a.txt").read_text()
        assert all(text.strip() and whole.startswith(text) for text in seen)
        assert all(len(text) < len(whole) for text in seen)
        assert not path.exists()
        assert daemon.sidecar("a.flac")["quality"]["resumed_windows"] > 0
        daemon.stop()
