"""Every engine with the real model `base` and word timestamps, in the whole sandbox of the unit."""

import json
import shutil
from pathlib import Path

import pytest
from support.service import Service, program_binds, provide_program
from support.systemd_lab import SystemdLab

import whisperd

pytestmark = [pytest.mark.systemd, pytest.mark.model, pytest.mark.slow]

SAMPLE = Path(whisperd.__file__).parent / "samples/jfk.ogg"
ENGINES = {
    "sequential": {"engine": "openai-whisper", "decoding": "sequential"},
    "batched": {"engine": "openai-whisper", "decoding": "batched"},
    "faster-whisper": {"engine": "faster-whisper"},
}


@pytest.fixture(scope="module")
def service(_bootable):
    """One machine for all engines; what one has compiled lies in the cache for the next."""
    with SystemdLab(program_binds()) as lab:
        provide_program(lab)
        yield Service(lab)


@pytest.mark.parametrize("name", ENGINES)
def test_engine(service, name):
    """The recording becomes its words, each with a time, and nothing complains of the sandbox."""
    service.configure(
        model="base", transcription={"word_timestamps": True}, output={"formats": ["txt", "json"]}, **ENGINES[name]
    )
    service.install()
    upload = service.spool / "inbox" / f"{name}.ogg"
    shutil.copy(SAMPLE, upload)
    service.wait_status(upload.name, "completed", "failed", timeout_seconds=120)
    text = (service.spool / f"outbox/{name}.txt").read_text()
    segments = json.loads((service.spool / f"outbox/{name}.json").read_text())["segments"]
    words = [word for segment in segments for word in segment["words"]]

    assert "ask what you can do for your country" in " ".join(text.split())
    assert len(words) > 15
    assert all(0 <= word["start"] <= word["end"] <= 11.1 for word in words)
    assert service.messages("--priority=warning") == []
