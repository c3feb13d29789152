"""Which ffmpeg is used, and with what arguments."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import pytest

from whisperd.core.errors import BootError, NoResources
from whisperd.core.job import Failure
from whisperd.core.options import MediaOptions
from whisperd.media.ffmpeg import Ffmpeg, decode_command, find_ffmpeg, inspect
from whisperd.media.ffmpeg_run import run


@pytest.fixture
def fake(tmp_path):
    """Makes a program that answers as told."""

    def make(folder, script):
        path = tmp_path / folder / "ffmpeg"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


RUNS = "echo 'ffmpeg version 5.1.9-0+deb12u1 Copyright' >&2; printf 'Input:\\n  file\\n  pipe\\n'"
RUNS_FD = "echo 'ffmpeg version n9.0' >&2; printf 'Input:\\n  fd\\n  file\\n'"


@pytest.fixture
def none_carried(monkeypatch):
    def get_ffmpeg_exe():
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", get_ffmpeg_exe)


def test_the_configured_one_comes_first(fake, monkeypatch):
    """What the operator names is used, whatever is on PATH."""
    configured, on_path = fake("configured", RUNS), fake("path", RUNS)
    monkeypatch.setenv("PATH", str(on_path.parent))

    assert find_ffmpeg(configured) == configured


def test_the_configured_one_may_be_a_name(fake, monkeypatch):
    """A bare name is looked up on PATH."""
    on_path = fake("path", RUNS)
    monkeypatch.setenv("PATH", str(on_path.parent))

    assert find_ffmpeg(Path("ffmpeg")) == on_path


def test_the_system_comes_before_the_carried_one(fake, monkeypatch):
    """The system's ffmpeg gets the security updates."""
    on_path = fake("path", RUNS)
    monkeypatch.setenv("PATH", str(on_path.parent))

    assert find_ffmpeg(None) == on_path


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(None, id="none on PATH"),
        pytest.param("exit 127", id="libraries missing"),
        pytest.param("echo hello >&2", id="another program"),
        pytest.param(f"{RUNS}; exit 1", id="fails"),
    ],
)
def test_the_carried_one_is_the_last_resort(script, fake, monkeypatch, tmp_path):
    """A machine without an ffmpeg that runs uses the one in the wheel."""
    folder = fake("path", script).parent if script else tmp_path
    monkeypatch.setenv("PATH", str(folder))

    assert find_ffmpeg(None) == Path(imageio_ffmpeg.get_ffmpeg_exe())


def test_none_at_all_is_a_boot_error(fake, monkeypatch, none_carried):
    """Without any ffmpeg the daemon does not start, and says what to do."""
    on_path = fake("path", "exit 127")
    monkeypatch.setenv("PATH", str(on_path.parent))

    with pytest.raises(BootError, match="no ffmpeg that runs") as caught:
        find_ffmpeg(None)

    assert str(on_path) in caught.value.message
    assert "pip install imageio-ffmpeg" in caught.value.hint


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        pytest.param(None, "No such file", id="missing"),
        pytest.param("exit 127", "exit status 127", id="fails"),
        pytest.param("echo hello", "does not answer as ffmpeg does", id="another program"),
    ],
)
def test_a_wrong_configured_one_is_a_boot_error(script, reason, fake, tmp_path):
    """What the operator names must run: nothing else is taken in its place."""
    configured = fake("configured", script) if script else tmp_path / "nowhere"

    with pytest.raises(BootError, match=reason) as caught:
        find_ffmpeg(configured)

    assert "media.ffmpeg" in caught.value.hint


def test_a_repaired_one_is_seen(fake):
    """Only success is remembered."""
    path = fake("configured", "exit 1")
    with pytest.raises(BootError):
        inspect(path)
    path.write_text(f"#!/bin/sh\n{RUNS}\n")

    assert inspect(path) == Ffmpeg(path, "5.1.9-0+deb12u1", reads_descriptors=False)


@pytest.mark.parametrize(
    ("script", "protocol", "source"),
    [
        pytest.param(RUNS_FD, "fd", "fd:", id="6.0 and later"),
        pytest.param(RUNS, "file", "file:/proc/self/fd/0", id="before"),
    ],
)
def test_one_protocol_and_the_open_descriptor(script, protocol, source, fake):
    """A recording can open nothing by itself where ffmpeg can be given it open."""
    command = decode_command(inspect(fake("x", script)))

    assert command[command.index("-protocol_whitelist") + 1] == protocol
    assert command[command.index("-i") + 1] == source


def test_dangerous_formats_are_not_opened(fake):
    """No format is on the list that names other files or hosts, or that reads no file at all."""
    command = decode_command(inspect(fake("x", RUNS)))
    opened = set(command[command.index("-format_whitelist") + 1].split(","))

    assert {"wav", "mp3", "mov", "matroska", "ogg", "flac", "mpegts"} <= opened
    assert opened.isdisjoint(
        {"hls", "applehttp", "dash", "webm_dash_manifest", "imf", "concat", "concatf", "tedcaptions"}
    )
    assert opened.isdisjoint(
        {"sdp", "rtp", "rtsp", "sap", "mlv", "image2", "image2pipe", "vobsub", "avisynth", "dvdvideo"}
    )
    assert opened.isdisjoint({"lavfi", "alsa", "pulse", "v4l2", "x11grab", "fbdev", "data", "rawvideo", "s16le"})


def test_asking_for_ffmpeg_needs_no_numpy():
    """`whisperd check` finds ffmpeg without loading what only a worker needs."""
    program = (
        "import sys; from whisperd.media.ffmpeg import find_ffmpeg; find_ffmpeg(None); import whisperd.media.decode; "
        "print({'numpy', 'torch'} & {*sys.modules})"
    )

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stdout) == (0, "set()\n"), ran.stderr


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE])
def test_a_machine_at_its_limits_is_not_a_missing_ffmpeg(number, fake, monkeypatch):
    """A good recording used to fail with `boot` and the hint to install ffmpeg."""
    path = fake("configured", RUNS)

    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(NoResources) as caught:
        find_ffmpeg(path)

    failure = Failure.of(caught.value)
    assert (failure.code, failure.retryable) == ("no_resources", True)
    with path.open("rb") as recording, pytest.raises(NoResources):
        run(
            Ffmpeg(path, "9", True),
            recording.fileno(),
            io.BytesIO(),
            MediaOptions(max_duration_seconds=60.0, stall_seconds=60.0),
            None,
        )
