"""Odd but valid, and valid but monstrous: right at its true length, or refused with a clear reason."""

import struct

import pytest
from support import audio, odd_media

from whisperd.core.errors import InputError
from whisperd.core.options import MediaOptions
from whisperd.media.decode import decode


@pytest.fixture
def options(ffmpeg_path):
    """Limits, and one ffmpeg after the other."""
    return MediaOptions(ffmpeg=ffmpeg_path, max_duration_seconds=120.0, stall_seconds=60.0)


@pytest.fixture
def ending(options, tmp_path):
    """Decodes bytes: gives the length in seconds, or the code of the error."""

    def end(data):
        source, samples = tmp_path / "upload.mp3", tmp_path / "samples"
        source.write_bytes(data)
        try:
            return round(decode(source, samples, options, lambda _seconds: None).duration_seconds, 2)
        except InputError as error:
            return error.job_code

    return end


@pytest.mark.parametrize(
    ("bits", "is_float", "expected"),
    [
        *((bits, False, 2.0) for bits in (8, 12, 16, 20, 24, 32, 64)),
        *((bits, True, 2.0) for bits in (32, 64)),
        (48, False, "corrupt"),
    ],
)
def test_samples_of_any_width(bits, is_float, expected, ending):
    """From 8 to 64 bits, whole numbers or not; what no decoder knows is refused."""
    assert ending(odd_media.wav(bits, 16_000, 2.0, is_float=is_float)) == expected


@pytest.mark.parametrize(
    ("rate", "seconds", "expected"),
    [
        *((rate, 60.0, 60.0) for rate in (1, 2, 7, 10, 100)),
        *((rate, 2.0, 2.0) for rate in (1000, 4000, 352_800, 384_000, 768_000, 1_000_000)),
        (0x7FFF_FFFF, 0.001, "corrupt"),
    ],
)
def test_any_rate(rate, seconds, expected, ending):
    """From 1 Hz to 768 kHz and beyond, the length stays what it was."""
    assert ending(odd_media.wav(16, rate, seconds)) == expected


def test_no_rate_at_all(ending):
    """0 Hz would last for ever."""
    data = odd_media.wav(16, 16_000, 1.0)

    assert ending(data[:24] + bytes(4) + data[28:]) == "corrupt"


NOTHING = struct.pack(">IiHH", 0xFFFF_FFFF, -1, 1, 0)  # an edit of 1193 hours of nothing
ALL = struct.pack(">IiHH", 1000, 0, 1, 0)
BOMBS = {
    "FLAC of 1000 hours at 1 Hz": (odd_media.flac(1, 1000, 65_535), {"too_long", "corrupt"}),
    "the same in small frames": (odd_media.flac(1, 1000, 4096), {"too_long", "corrupt"}),
    "WAV of 1000 hours at 1 Hz": (odd_media.wav(8, 1, 3_600_000), {"too_long"}),
    "MP4 that says an hour of each sample": (odd_media.mp4(ticks=57_600_000), {"too_long"}),
    "MP4 that begins with 1193 hours of nothing": (odd_media.mp4(edits=NOTHING + ALL), {1.0, "too_long"}),
    "MP4 that plays its second 1000 times": (odd_media.mp4(edits=ALL * 1000), {"too_long"}),
    "WAV that promises 2 GB": (odd_media.wav(16, 16_000, 1.0, stated_bytes=0x7FFE_0000), {"truncated"}),
}


@pytest.mark.parametrize(("data", "expected"), BOMBS.values(), ids=BOMBS)
def test_a_length_that_is_not_there(data, expected, ending):
    """Kilobytes that stand for months end at the limit, or at the memory that ffmpeg may have."""
    assert len(data) < 4_000_000

    assert ending(data) in expected


@pytest.mark.parametrize(("tracks", "expected"), [(1, {1.0}), (100, {1.0}), (5000, {1.0, "not_media"})])
def test_streams_by_the_thousand(tracks, expected, ending):
    """The first is taken; what is more than ffmpeg counts is refused."""
    assert ending(odd_media.matroska(tracks)) in expected


@pytest.mark.parametrize("kind", [b"TXXX", b"APIC"], ids=["tag", "cover that is no picture"])
def test_a_tag_of_32_megabytes(kind, ending, tmp_path):
    """What is written before the sound neither hides it nor fills the memory; a broken cover does not break the song."""
    song = audio.encode(tmp_path / "a.mp3", "-i", audio.wav(tmp_path / "a.wav"), "-id3v2_version", 0, "-write_xing", 0)

    assert ending(odd_media.id3(32_000_000, kind) + song.read_bytes()) == pytest.approx(3.0, abs=0.15)
