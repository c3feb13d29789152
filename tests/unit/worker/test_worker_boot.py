"""What a worker has loaded and tried before it says that it is ready."""

from __future__ import annotations

import pytest
from support.lines import line_pair

from whisperd.core.errors import BootError
from whisperd.engine import create
from whisperd.engine.api import EngineInfo
from whisperd.media import vad
from whisperd.protocol import BootFailed, Ready
from whisperd.settings import config
from whisperd.worker.main import _boot


class WindowEngine:
    """Takes windows, as far as a boot can tell."""

    info = EngineInfo("windows", "none", "cpu", "fp32")

    def submit(self, window):
        raise NotImplementedError


def boot(tmp_path, **changes):
    """What a worker says first, and whether it can serve."""
    settings = config.validate({"root": str(tmp_path), "engine": "scripted", **changes}, source="test")
    ours, theirs = line_pair()
    with ours, theirs:
        serve = _boot(theirs, settings.engine_options())
        said = ours.receive()
        assert not ours.poll()
    return said, serve


def test_ready_when_everything_loads(tmp_path, monkeypatch):
    """Both kinds of engine."""
    assert isinstance(boot(tmp_path)[0], Ready)
    monkeypatch.setattr(create, "create", lambda options: WindowEngine())
    said, serve = boot(tmp_path)

    assert isinstance(said, Ready)
    assert serve is not None


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
    monkeypatch.setattr(create, "create", lambda options: WindowEngine())
    monkeypatch.setattr(vad.Detector, method, replacement)
    said, serve = boot(tmp_path)

    assert isinstance(said, BootFailed)
    assert reason in said.failure.message
    assert serve is None


def test_a_missing_ffmpeg_is_a_failed_boot(tmp_path):
    """Without it every job would fail."""
    said, serve = boot(tmp_path, media={"ffmpeg": str(tmp_path / "no-ffmpeg")})

    assert isinstance(said, BootFailed)
    assert "no-ffmpeg does not run" in said.failure.message
    assert serve is None
