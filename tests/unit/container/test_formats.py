"""What the header of an upload tells: a playlist, a format, a size, and damage."""

import struct

import pytest
from support.containers import FTYP, box, wav

from whisperd.container import Damaged, Short, Source, Unknown, format_of, inspect, playlist_kind

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


def test_a_tag_longer_than_the_file_is_short():
    """A picture in front of the sound of an MP3 can be megabytes."""
    assert inspect(Source(b"ID3\x04\0\0\0\x0f\x7f\x7f" + bytes(90))) == Short(262_153, 100)


def flac(*blocks):
    """The start of a FLAC file; each block is its type, the length that it states, and what is there of it."""
    return b"fLaC" + b"".join(bytes([kind]) + size.to_bytes(3, "big") + content for kind, size, content in blocks)


def element(kind, size, content=b""):
    return bytes.fromhex(kind) + (1 << 56 | size).to_bytes(8, "big") + content


STREAMINFO = (0, 34, bytes(10) + b"\x0a\xc4\x42\xf0" + bytes(20))  # 44.1 kHz
PICTURE = struct.pack(">II9sII", 3, 9, b"image/png", 0, 0)
MP3_FRAME = b"\xff\xfb\x90\x00" + bytes(32)
EBML = "1a45dfa3"
SEGMENT = "18538067"
EXBIBYTE = 1 << 60
IMPOSSIBLE = {
    "ID3: a byte of the length has eight bits": b"ID3\x03\0\0\xe7\x7f\x7f\x7f" + bytes(7),
    "ID3: version 255": b"ID3\xff\0\0\0\0\x7f\x7f" + bytes(7),
    "ID3: begins with no frame": b"ID3\x03\0\0\x67\x7f\x7f\x7f\xa0\xb1\xc2\xd3\xe4\xf5\x06",
    "ID3: a frame longer than the tag": b"ID3\x03\0\0\0\0\x7f\x7fTIT2\x10\0\0\0\0\0",
    "ID3 2.2: a frame longer than the tag": b"ID3\x02\0\0\0\0\x7f\x7fTT2\xff\xff\xff" + bytes(9),
    "FLAC: begins with a picture": flac((6, 0xFFFFFF, b"12345")),
    "FLAC: a description of 16 MB": flac((0, 0xFFFFFF, b"")),
    "FLAC: two descriptions": flac(STREAMINFO, STREAMINFO),
    "FLAC: a forbidden block": flac(STREAMINFO, (127, 9_000_000, b"")),
    "FLAC: a sample rate of 0": flac((0, 34, b"\x10\0\x10" + bytes(31)), (1, 5000, b"")),
    "FLAC: the name of a picture's format is longer than the block": flac(
        STREAMINFO, (6, 5000, b"\0\0\0\x03\x0f\xff\xff\xff")
    ),
    "FLAC: a picture is longer than the block": flac(STREAMINFO, (6, 5000, PICTURE + bytes(12) + b"\0\xff\xff\xff")),
    "FLAC: a tag is longer than the block": flac(STREAMINFO, (4, 5000, b"\xff\xff\xff\x0f")),
    "RIFF: no kind of content": b"RIFF\x10\x27\0\0\x01\x02\x03\x04",
    "WAV: a format of 2 GB": b"RIFF\x10\x27\0\0WAVEfmt \0\0\0\x70",
    "WAV: no channels": wav(1000, 10)[:22] + b"\0\0" + wav(1000, 10)[24:],
    "WAV: a sample rate of 0": wav(1000, 10)[:24] + bytes(4) + wav(1000, 10)[28:],
    "AVI: its first chunk is longer than all": b"RIFF\x10\x27\0\0AVI LIST\x11\x27\0\0",
    "RF64: an exbibyte": wav(-1, 500, outer=-1, magic=b"RF64").replace(
        b"fmt ", b"ds64" + struct.pack("<IQQQ", 24, EXBIBYTE, EXBIBYTE, 0) + b"fmt "
    ),
    "AIFF: a description of 2 GB": b"FORM\0\1\0\0AIFFCOMM\x70\0\0\0",
    "AIFF: sound of 3 bytes": b"FORM\0\1\0\0AIFFSSND\0\0\0\3",
    "CAF: begins with the sound": b"caff\0\1\0\0data" + struct.pack(">q", 5000),
    "CAF: a description that points back": b"caff\0\1\0\0desc" + struct.pack(">q", -40),
    "CAF: an exbibyte": b"caff\0\1\0\0desc" + struct.pack(">q", 32) + bytes(32) + b"data" + struct.pack(">q", EXBIBYTE),
    "Wave64: a chunk of 7 bytes": W64 + struct.pack("<Q", 5000) + bytes(16) + b"x" * 16 + struct.pack("<Q", 7),
    "WMA: a header of 5 bytes": ASF + struct.pack("<Q", 5) + bytes(90),
    "WMA: the first part of the header is longer than it": ASF
    + struct.pack("<QIH16sQ", 5000, 2, 0x201, b"x" * 16, 1 << 40),
    "MP4: a first box of 2 GB": b"\x70\0\0\0ftypM4A ",
    "MP4: a first box of 5 bytes": b"\0\0\0\5ftypM4A ",
    "MP4: a long box of 9 bytes": FTYP + box(b"mdat", struct.pack(">Q", 9), size=1),
    "MP4: an exbibyte": FTYP + box(b"mdat", struct.pack(">Q", EXBIBYTE), size=1),
    "MP4: an index shorter than its first part": FTYP + box(b"moov", b"\x70\0\0\0mvhd", size=5000),
    "Matroska: a header of 1 MB": element(EBML, 1_000_000),
    "Matroska: an exbibyte, nearly": element(EBML, 4, b"1234") + element(SEGMENT, (1 << 56) - 2),
    "Matroska: a first part longer than all": element(EBML, 4, b"1234")
    + element(SEGMENT, 5000, element("1549a966", 5001)),
    "MP3: 216 MB in one frame": MP3_FRAME + b"Xing" + struct.pack(">III", 3, 1, 216_000_000),
}


@pytest.mark.parametrize("content", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_header_that_no_recording_can_have_is_damage(content):
    """Nobody waits an hour for the rest of a file that cannot exist."""
    promise = inspect(Source(content))

    assert isinstance(promise, Damaged)
    assert promise.reason


POSSIBLE = {
    "ID3 of 256 MB": b"ID3\x03\0\0\x7f\x7f\x7f\x7f" + b"APIC\x0f\xff\xff",
    "ID3 of version 4 with a frame length of eight bits a byte": b"ID3\x04\0\0\0\0\x7f\x7fAPIC\0\0\x20\x80\0\0",
    "ID3 with room at its start": b"ID3\x03\0\0\0\x7f\x7f\x7f" + bytes(7),
    "FLAC with a picture of 16 MB": flac(STREAMINFO, (6, 0xFFFFFF, PICTURE + bytes(12) + b"\0\xff\xff\0")),
    "FLAC with tags of 16 MB": flac(STREAMINFO, (4, 0xFFFFFF, b"\x20\0\0\0")),
    "FLAC, reserved": flac(STREAMINFO) + bytes(500),
    "FLAC, only the magic": b"fLaC",
    "WAV of 1.9 GB": wav(1_900_000_000, 0),
    "WAV, reserved after the first header": b"RIFF\x10\x27\0\0WAVE" + bytes(500),
    "AVI of 2 GB": b"RIFF\0\0\0\x70AVI LIST\0\x20\0\0hdrl",
    "AIFF of 1.9 GB": b"FORM\x70\0\0\0AIFFCOMM\0\0\0\x12",
    "CAF of 1 TB": b"caff\0\1\0\0desc" + struct.pack(">q", 32) + bytes(32) + b"data" + struct.pack(">q", 1 << 40),
    "CAF, reserved": b"caff\0\1\0\0" + bytes(500),
    "WMA of 1 TB": ASF + struct.pack("<QIH16sQ", 5000, 2, 0x201, b"x" * 16, 104),
    "MP4 of 1 TB": FTYP + box(b"mdat", struct.pack(">Q", 1 << 40), size=1),
    "MP4, its index reserved": FTYP + box(b"moov", bytes(50), size=5000),
    "Matroska of 1 TB": element(EBML, 4, b"1234") + element(SEGMENT, 1 << 40, element("1549a966", 500)),
    "MP3 of 216 MB": MP3_FRAME + b"Xing" + struct.pack(">III", 3, 516_000, 216_000_000),
}


@pytest.mark.parametrize("content", POSSIBLE.values(), ids=POSSIBLE)
def test_a_large_recording_that_has_just_begun_to_arrive_is_not_damage(content):
    """Whatever a header can truthfully say is a promise, however little has come yet."""
    assert isinstance(inspect(Source(content)), Short)
