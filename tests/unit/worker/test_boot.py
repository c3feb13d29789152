"""What a worker has loaded and tried before it says that it is ready."""

from __future__ import annotations

import pytest
from support.lines import line_pair

from whisperd.core.errors import BootError
from whisperd.engine import api
from whisperd.engine.api import EngineInfo
from whisperd.media import vad
from whisperd.protocol import Boot, BootFailed, Ready
from whisperd.settings import config
from whisperd.worker.boot import _boot


class WindowEngine:
    """Takes windows, as far as a boot can tell."""

    info = EngineInfo("windows", "none", "cpu", "fp32")
    takes_recordings = False


def boot(tmp_path, **changes):
    """What a worker says first, and its pipeline."""
    settings = config.validate({"root": str(tmp_path), "engine": "scripted", **changes}, source="test")
    ours, theirs = line_pair()
    with ours, theirs:
        pipeline = _boot(theirs, Boot(settings.engine_options()))
        said = ours.receive()
        assert not ours.poll()
    return said, pipeline


def test_ready_when_everything_loads(tmp_path, monkeypatch):
    """Engines that take windows and engines that take whole recordings."""
    assert isinstance(boot(tmp_path)[0], Ready)
    monkeypatch.setattr(api, "create", lambda options: WindowEngine())
    said, pipeline = boot(tmp_path)

    assert isinstance(said, Ready)
    assert pipeline is not None


def broken_load(self):
    raise BootError("silero-vad has no weights", hint="install it")


def broken_run(self, audio, report):
    raise RuntimeError("the network does not run")


@pytest.mark.parametrize(
    ("method", "replacement", "reason"),
    [("__init__", broken_load, "has no weights"), ("probabilities", broken_run, "network does not run")],
    ids=["does not load", "does not run"],
)
def test_voice_detection_that_fails_is_a_failed_boot(tmp_path, monkeypatch, method, replacement, reason):
    """READY used to be said first; then the worker died, and each job lost an attempt."""
    monkeypatch.setattr(api, "create", lambda options: WindowEngine())
    monkeypatch.setattr(vad.Detector, method, replacement)
    said, pipeline = boot(tmp_path)

    assert isinstance(said, BootFailed)
    assert reason in said.failure.message
    assert pipeline is None


def test_a_missing_ffmpeg_is_a_failed_boot(tmp_path):
    """Without it every job would fail."""
    said, pipeline = boot(tmp_path, media={"ffmpeg": str(tmp_path / "no-ffmpeg")})

    assert isinstance(said, BootFailed)
    assert "no-ffmpeg does not run" in said.failure.message
    assert pipeline is None
