"""What the first bytes of an upload tell: a playlist, a format, and a size."""

import struct

import pytest

from whisperd.container import Short, Source, Unknown, format_of, inspect, playlist_kind

W64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def riff(size):
    return b"RIFF" + struct.pack("<I", size) + b"WAVEfmt "


def rf64(size):
    return b"RF64" + b"\xff" * 4 + b"WAVEds64" + struct.pack("<IQQQ", 28, size, 0, 0)


def caf(size):
    return b"caff\0\1\0\0" + b"desc" + struct.pack(">q", 32) + bytes(32) + b"data" + struct.pack(">q", size)


def asf(size, flags=2):
    properties = ASF_FILE_PROPERTIES + struct.pack("<Q16sQ", 104, b"id", size) + bytes(40) + struct.pack("<I", flags)
    return ASF + struct.pack("<QIBB", 200, 1, 1, 2) + properties


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        pytest.param(b"#EXTM3U\n#EXTINF", "an HLS or M3U playlist", id="HLS"),
        pytest.param(b"\xef\xbb\xbf\r\n #EXTM3U\n", "an HLS or M3U playlist", id="byte order mark and blanks"),
        pytest.param(b"ffconcat version 1.0\n", "a concat script", id="ffconcat"),
        pytest.param(b"[playlist]\nFile1=", "a PLS playlist", id="PLS"),
        pytest.param(b"v=0\r\no=-", "an SDP session description", id="SDP"),
        pytest.param(b"<?xml version='1.0'?>\n<MPD xmlns='x'>", "a playlist (MPD)", id="DASH"),
        pytest.param(b"<asx version='3'>", "a playlist (asx)", id="ASX"),
        pytest.param(b"<cpl:CompositionPlaylist xmlns='x'>", "a playlist (CompositionPlaylist)", id="IMF"),
        pytest.param(b"<html><body>", "", id="other XML"),
        pytest.param(b"RIFF....WAVE <MPD >", "", id="a recording that mentions one"),
        pytest.param(b"", "", id="nothing"),
    ],
)
def test_playlists_are_known_at_sight(head, kind):
    """What only points to recordings elsewhere is named as such."""
    assert playlist_kind(head) == kind


@pytest.mark.parametrize(
    ("head", "size"),
    [
        pytest.param(riff(1000), 1008, id="RIFF"),
        pytest.param(rf64(5_000_000_000), 5_000_000_008, id="RF64"),
        pytest.param(W64 + struct.pack("<Q", 5_000_000_000), 5_000_000_000, id="W64"),
        pytest.param(caf(1000), 64 + 1000, id="CAF"),
        pytest.param(asf(1000), 1000, id="ASF"),
    ],
)
def test_the_header_states_the_size(head, size):
    """The size in the header counts, though nothing else has come yet."""
    assert inspect(Source(head)) == Short(size, len(head))


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(riff(0), id="RIFF of a recorder that died"),
        pytest.param(riff(0xFFFF_FFFF), id="RIFF written to a pipe by ffmpeg"),
        pytest.param(riff(0x7FFF_F024), id="RIFF written to a pipe by sox"),
        pytest.param(riff(0x8000_0024), id="RIFF written to a pipe by arecord"),
        pytest.param(rf64(0), id="RF64 without size"),
        pytest.param(rf64(2**64 - 1), id="RF64 of unknown size"),
        pytest.param(caf(-1), id="CAF until its end"),
        pytest.param(asf(1000, flags=1), id="ASF broadcast"),
        pytest.param(ASF + bytes(100), id="ASF without properties"),
        pytest.param(b"ID3\4" + bytes(100), id="others"),
        pytest.param(b"RI", id="two bytes"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_a_header_without_a_size_promises_nothing(head):
    """Numbers that stand for "unknown" are no size."""
    assert inspect(Source(head)) == Unknown()


def test_a_wma_cut_within_its_header_is_short():
    """The size stands behind the cut."""
    assert inspect(Source(asf(1000)[:100])) == Short(None, 100, "its header")


@pytest.mark.parametrize(
    ("head", "name", "is_readable"),
    [
        pytest.param(b"ADIF\x10\x00", "AAC (ADIF)", False, id="ADIF"),
        pytest.param(b"\x01\x25\0\0\0\0\x01\0", "Musepack of version 4, 5 or 6", False, id="Musepack 4"),
        pytest.param(b"\xc1\x2f\x20\0\0\1\0\0", "Musepack of version 4, 5 or 6", False, id="Musepack 5"),
        pytest.param(b"MP+\x07", "Musepack", True, id="Musepack 7"),
        pytest.param(b"\xff\xfb\x90\x00", "MP3", True, id="MP3"),
        pytest.param(b"RIFF\0\0\0\0WAVE", "WAV", True, id="WAV"),
        pytest.param(b"RIFF\0\0\0\0RMID", "MIDI (notes instead of sound)", False, id="MIDI"),
        pytest.param(b"\0\0\0\x18ftypM4A ", "MP4", True, id="MP4"),
    ],
)
def test_formats_are_known_by_their_first_bytes(head, name, is_readable):
    """The name of the file plays no part."""
    known = format_of(Source(head))

    assert (known.name, known.is_readable) == (name, is_readable)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"\xff\xfeH\0e\0", id="text in UTF-16"),
        pytest.param(b"\x01\x25\x41\0\0\0\0\0", id="nearly Musepack"),
        pytest.param(b"\xff\xfb\xf0\x00", id="MP3 of a forbidden bit rate"),
        pytest.param(bytes(16), id="zeros"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_only_resembles_a_format_is_none(head):
    """A wrong name would mislead."""
    assert format_of(Source(head)) is None
