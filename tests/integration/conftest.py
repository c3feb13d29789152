"""Fixtures of the tests that run real processes."""

from __future__ import annotations

import shutil
from pathlib import Path

import imageio_ffmpeg
import pytest


@pytest.fixture(params=["carried", "system"])
def ffmpeg_path(request):
    """One ffmpeg after the other: the one that imageio-ffmpeg carries, and the system's."""
    path = imageio_ffmpeg.get_ffmpeg_exe() if request.param == "carried" else shutil.which("ffmpeg")
    if path is None:
        pytest.skip("no ffmpeg on PATH")
    return Path(path)


@pytest.fixture
def samples(tmp_path):
    """Where ffmpeg writes the samples of a recording."""
    return tmp_path / "samples.s16le"
