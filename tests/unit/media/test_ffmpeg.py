"""Which ffmpeg is used, with what arguments, and what is made of its words."""

import errno
import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisperd.core.errors import BootError, NoResources
from whisperd.core.job import Failure
from whisperd.core.options import MediaOptions
from whisperd.media.ffmpeg import (
    LONGEST_LINE,
    LONGEST_TEXT,
    Ffmpeg,
    FfmpegLog,
    decode_command,
    find_ffmpeg,
    inspect,
    run,
)


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


def test_a_track_is_chosen_and_all_count_time_alike(fake):
    """Without a choice it is the first, as ever."""
    ffmpeg = inspect(fake("x", RUNS))
    maps = [
        [value for name, value in itertools.pairwise(decode_command(ffmpeg, **choice)) if name == "-map"]
        for choice in ({}, {"track": 2, "clock": (0, 2, 3)})
    ]

    assert maps == [["0:a:0", "0:a:0", "0:V:0?"], ["0:a:2", "0:a:0", "0:a:2", "0:a:3", "0:V:0?"]]


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


NEW = b"""\
[info] Input #0, matroska,webm, from 'fd:':
[info]   Metadata:
[info]     title           : my holiday
[info]   Duration: 01:02:03.45, start: 0.000000, bitrate: 340 kb/s
[info]   Stream #0:0: Video: mpeg4 (Simple Profile), yuv420p, 320x240, 25 fps
[info]   Stream #0:1(eng): Audio: aac (LC), 48000 Hz, mono, fltp, start 4.000000 (default)
[info]   Stream #0:2: Audio: opus, 48000 Hz, stereo, fltp
[info]   Stream #0:3: Video: png, rgb24, 320x240 (attached pic)
[info] Stream mapping:
[info]   Stream #0:1 -> #0:0 (aac (native) -> pcm_s16le (native))
[info] Output #0, s16le, to 'pipe:1':
[info]   Stream #0:0: Audio: pcm_s16le, 16000 Hz, mono, s16, 256 kb/s
[Eval @ 0x7f612cd55250] [info] 4.000000
[aist#0:1/aac @ 0x5651] [dec:aac @ 0x5652] [error] Error submitting packet to decoder: Invalid data found
[aac @ 0x5653] [error] Reserved bit set.
"""
OLD = b"""\
[info] Input #0, mp3, from 'file:/proc/self/fd/0':
[info]   Duration: N/A, start: 1.440000, bitrate: N/A
[info]     Stream #0:0[0x101](und): Audio: mp3, 44100 Hz, mono, fltp, 64 kb/s
[info] Stream mapping:
[info] -0.979000
[info] 5.000000
"""


def read(*texts):
    log = FfmpegLog()
    for text in texts:
        log.feed(text)
    log.finish()
    return log


def facts(log):
    return {name: value for name, value in vars(log).items() if not name.startswith("_")} | {
        "promised_seconds": log.promised_seconds
    }


def test_facts_of_a_newer_ffmpeg():
    """The banner of the input counts, that of the output does not, and cover pictures are no video."""
    log = read(NEW)

    assert (log.container, len(log.tracks), log.video_tracks) == ("matroska,webm", 2, 1)
    assert log.tracks[0].about == "aac (LC), 48000 Hz, mono, fltp, start 4.000000 (default)"
    assert (log.promised_seconds, log.first_sound_seconds) == (3723.45, 4.0)
    assert (log.errors, log.cause) == (2, "Reserved bit set.")


def test_facts_of_an_older_ffmpeg():
    """Streams may be indented further, a length may be unknown, and only the first time counts."""
    log = read(OLD)

    assert (log.container, log.tracks[0].about) == ("mp3", "mp3, 44100 Hz, mono, fltp, 64 kb/s")
    assert (log.promised_seconds, log.first_sound_seconds) == (None, -0.979)


TRACKS = b"""\
[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'fd:':
[info]   Metadata:
[info]     title           : of the film
[info]   Chapters:
[info]     Chapter #0:0: start 0.000000, end 2.000000
[info]       Metadata:
[info]         title           : of a chapter
[info]   Stream #0:0[0x1](und): Video: h264 (avc1 / 0x31637661), yuv420p, 64x64
[info]     Metadata:
[info]       title           : of the picture
[info]   Stream #0:2[0x3](de-AT): Audio: aac (LC) (mp4a / 0x6134706D), 44100 Hz, mono, fltp, 68 kb/s
[info]     Metadata:
[info]       handler_name    : SoundHandler
[info]       name            : Guest: "A" <b>
[info]   Stream #0:1[0x2](und): Audio: aac (LC) (mp4a / 0x6134706D), 44100 Hz, mono, fltp, 69 kb/s (default)
[info]   Stream #0:3[0x4](eng): Subtitle: mov_text (tx3g / 0x67337874)
[info]     Metadata:
[info]       title           : of the subtitles
[info]   Stream #0:4: Audio: aac ([15][0][0][0] / 0x000F), 0 channels
[info] At least one output file must be specified
"""


def test_facts_of_sound_tracks():
    """They are in the order in which ffmpeg counts them; titles of other things are not theirs."""
    first, second, third = read(TRACKS).tracks

    assert (first.title, first.language, first.is_empty) == ("", "", False)
    assert (second.title, second.language, second.is_empty) == ('Guest: "A" <b>', "de-AT", False)
    assert (third.title, third.language, third.is_empty) == ("", "", True)


@given(st.lists(st.integers(0, len(NEW)), max_size=8))
def test_pieces_do_not_matter(cuts):
    """However the pipe cuts the text, the facts are the same."""
    edges = [0, *sorted(cuts), len(NEW)]

    pieces = [NEW[start:end] for start, end in itertools.pairwise(edges)]

    assert facts(read(*pieces)) == facts(read(NEW))


@given(st.binary(max_size=2000))
def test_any_bytes_can_be_read(data):
    """Nothing that ffmpeg passes on from a file raises, and what is kept of it can be shown anywhere."""
    title = b"[info]   Stream #0:1(" + data + b"): Audio: aac\n[info]       title           : " + data
    log = read(title + NEW + b"[error] " + data, b"\n[info] Input #0, " + data + b", from 'x'\n" + title, data)

    shown = [
        log.container,
        log.cause,
        *(text for each in log.tracks for text in (each.about, each.language, each.title)),
    ]
    assert all(text.isprintable() and len(text) <= LONGEST_TEXT for text in shown)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        pytest.param("[concat @ 0x1] [error] Format not on whitelist 'wav'", "refused", id="format"),
        pytest.param("[mov @ 0x1] [error] moov atom not found", "index_missing", id="no index"),
        pytest.param("[mov @ 0x1] [error] stream 0, offset 0x100ae: partial file", "cut_off", id="mp4"),
        pytest.param("[matroska,webm @ 0x1] [error] File ended prematurely", "cut_off", id="matroska"),
        pytest.param("[mp3 @ 0x1] [warning] filesize and duration do not match (growing file?)", "cut_off", id="mp3"),
        pytest.param("[flv @ 0x1] [warning] Packet corrupt (stream = 1, dts = 6743).", "cut_off", id="flv"),
        pytest.param("[SWR @ 0x1] [error] Failed to compensate for timestamp delta of 8e4", "unfillable", id="hole"),
        pytest.param("[info] Exiting normally, received signal 15.", "interrupted", id="signal"),
    ],
)
def test_complaints_are_understood(line, name):
    """Each complaint on which a verdict rests sets its own mark and no other."""
    log = read(line.encode())

    assert {fault.value for fault in log.faults} == {name}


def test_a_guessed_length_is_no_promise():
    """A length that ffmpeg derives from the bit rate says nothing about what was uploaded."""
    log = read(b"[mp3 @ 0x1] [warning] Estimating duration from bitrate, this may be inaccurate\n", NEW)

    assert log.promised_seconds is None


def test_a_number_without_end_is_none():
    """The fuzzer's find: so many digits are no float, and no length."""
    log = read(NEW.replace(b"Duration: 01:", b"Duration: " + b"1" * 400 + b":"), b"[info] " + b"4" * 400 + b".5\n")

    assert log.promised_seconds is None


def test_the_descriptor_is_not_shown():
    """A complaint is about the recording, not about the name under which ffmpeg has it."""
    log = read(b"[error] file:/proc/self/fd/0: Input/output error\n")

    assert log.cause == "Input/output error"


def test_words_of_others_are_not_ffmpegs():
    """What a dynamic linker says is no line of ffmpeg."""
    log = read(b"ffmpeg: error while loading shared libraries: libavdevice.so.59: cannot open\n")

    assert (log.said_anything, log.errors) == (False, 0)


def test_memory_is_bounded():
    """A line without end is cut, and the next one is read as usual."""
    log = FfmpegLog()
    log.feed(b"[error] ")
    for _ in range(100):
        log.feed(b"x" * 100_000)
    assert len(log._rest) <= LONGEST_LINE

    log.feed(b"\n[error] y\n")

    assert log.errors == 2


def test_the_channels_of_the_output_are_read_from_what_ffmpeg_says():
    """Of the samples that come out, not of the recording or of its copy."""
    log = FfmpegLog()
    log.feed(b"""[info] Input #0, wav, from 'fd:':
[info]   Stream #0:0: Audio: pcm_s16le ([1][0][0][0] / 0x0001), 48000 Hz, 5.1, s16, 4608 kb/s
[info] Output #1, null, to 'pipe:':
[info]   Stream #1:0: Audio: pcm_s16le ([1][0][0][0] / 0x0001), 48000 Hz, 5.1, s16, 4608 kb/s
[info] Output #0, s16le, to 'pipe:1':
[info]   Stream #0:0: Audio: pcm_s16le, 16000 Hz, 5.1, s16, 1536 kb/s
[info]   Stream #0:0: Audio: pcm_s16le, 16000 Hz, 5.1, s16, 256 kb/s
""")

    assert log.channels == 6
