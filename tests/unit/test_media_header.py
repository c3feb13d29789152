"""What the first bytes of an upload tell."""

import struct

import pytest

from whisperd.speech.header import playlist_kind, promised_bytes

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
        pytest.param(riff(0), None, id="RIFF of a recorder that died"),
        pytest.param(riff(0xFFFF_FFFF), None, id="RIFF written to a pipe by ffmpeg"),
        pytest.param(riff(0x7FFF_F024), None, id="RIFF written to a pipe by sox"),
        pytest.param(riff(0x8000_0024), None, id="RIFF written to a pipe by arecord"),
        pytest.param(rf64(5_000_000_000), 5_000_000_008, id="RF64"),
        pytest.param(rf64(0), None, id="RF64 without size"),
        pytest.param(rf64(2**64 - 1), None, id="RF64 of unknown size"),
        pytest.param(W64 + struct.pack("<Q", 5_000_000_000), 5_000_000_000, id="W64"),
        pytest.param(caf(1000), 64 + 1000, id="CAF"),
        pytest.param(caf(-1), None, id="CAF until its end"),
        pytest.param(b"caff\0\1\0\0desc" + struct.pack(">q", -40) + bytes(64), None, id="CAF that points back"),
        pytest.param(asf(1000), 1000, id="ASF"),
        pytest.param(asf(1000, flags=1), None, id="ASF broadcast"),
        pytest.param(asf(1000)[:100], None, id="ASF cut within its header"),
        pytest.param(ASF + bytes(100), None, id="ASF without properties"),
        pytest.param(b"ID3\4" + bytes(100), None, id="others"),
        pytest.param(b"RI", None, id="two bytes"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_the_header_states_the_size(head, size):
    """The size in the header counts, unless it is one of the numbers that stand for "unknown"."""
    assert promised_bytes(head) == size
