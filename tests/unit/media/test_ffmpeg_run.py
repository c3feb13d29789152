"""What is made of ffmpeg's words."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisperd.media.ffmpeg_run import LONGEST_LINE, LONGEST_TEXT, FfmpegLog

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

    assert (log.container, log.audio_tracks, log.video_tracks) == ("matroska,webm", 2, 1)
    assert log.audio == "aac (LC), 48000 Hz, mono, fltp, start 4.000000 (default)"
    assert (log.promised_seconds, log.first_sound_seconds) == (3723.45, 4.0)
    assert (log.errors, log.cause) == (2, "Reserved bit set.")


def test_facts_of_an_older_ffmpeg():
    """Streams may be indented further, a length may be unknown, and only the first time counts."""
    log = read(OLD)

    assert (log.container, log.audio) == ("mp3", "mp3, 44100 Hz, mono, fltp, 64 kb/s")
    assert (log.promised_seconds, log.first_sound_seconds) == (None, -0.979)


@given(st.lists(st.integers(0, len(NEW)), max_size=8))
def test_pieces_do_not_matter(cuts):
    """However the pipe cuts the text, the facts are the same."""
    edges = [0, *sorted(cuts), len(NEW)]

    pieces = [NEW[start:end] for start, end in itertools.pairwise(edges)]

    assert facts(read(*pieces)) == facts(read(NEW))


@given(st.binary(max_size=2000))
def test_any_bytes_can_be_read(data):
    """Nothing that ffmpeg passes on from a file raises, and what is kept of it can be shown anywhere."""
    log = read(NEW + b"[error] " + data, b"\n[info] Input #0, " + data + b", from 'x'\n", data)

    assert all(text.isprintable() and len(text) <= LONGEST_TEXT for text in (log.container, log.audio, log.cause))


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
