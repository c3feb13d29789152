"""What single headers promise, built by hand where a real encoder would not make them."""

import struct

import pytest

from whisperd.container import Complete, Damaged, Short, Source, Unknown, inspect


def wav(data_size, present, *, outer=None, magic=b"RIFF"):
    fmt = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    outer = 4 + len(fmt) + 8 + data_size if outer is None else outer
    return (
        magic
        + struct.pack("<I", outer & 0xFFFFFFFF)
        + b"WAVE"
        + fmt
        + b"data"
        + struct.pack("<I", data_size & 0xFFFFFFFF)
        + bytes(present)
    )


@pytest.mark.parametrize(
    ("content", "promise"),
    [
        pytest.param(wav(1000, 1000), Complete(), id="whole"),
        pytest.param(wav(1000, 999), Short(1044, 1043), id="one byte short"),
        pytest.param(wav(1000, 1000, outer=1044), Complete(), id="outer size wrong by eight, as some writers have it"),
        pytest.param(wav(1000, 1000, outer=90_000), Complete(), id="only tags are missing"),
        pytest.param(wav(0, 500, outer=0), Unknown(), id="sizes zero: a stream"),
        pytest.param(wav(0xFFFFFFFF, 500, outer=0xFFFFFFFF), Unknown(), id="sizes all ones: a stream"),
        pytest.param(wav(0x7FFFFFFF - 36, 500, outer=0x7FFFFFFF), Unknown(), id="2 GiB: sox to a pipe"),
        pytest.param(b"RIFF\x10\x27\0\0WAVE", Short(10_008, 12), id="nothing but the first header"),
        pytest.param(b"RIFF\x10\x27\0\0AVI LIST", Short(10_008, 16), id="AVI"),
    ],
)
def test_riff(content, promise):
    """Sound that is missing is missed; a length that was never known is not."""
    assert inspect(Source(content)) == promise


def box(kind, content=b"", size=None):
    return struct.pack(">I", 8 + len(content) if size is None else size) + kind + content


FTYP = box(b"ftyp", b"M4A \0\0\0\0")


@pytest.mark.parametrize(
    ("content", "promise"),
    [
        pytest.param(FTYP + box(b"moov", bytes(50)) + box(b"mdat", bytes(99)), Complete(), id="index first"),
        pytest.param(FTYP + box(b"mdat", bytes(99)) + box(b"moov", bytes(50)), Complete(), id="index last"),
        pytest.param(FTYP + box(b"mdat", bytes(99)), Short(None, 123, "its index (moov)"), id="no index yet"),
        pytest.param(FTYP + box(b"moov", bytes(50)), Short(None, 74, "its sound (mdat)"), id="no sound yet"),
        pytest.param(
            FTYP + box(b"mdat", b"", size=0) + bytes(99), Short(None, 123, "its index (moov)"), id="still recording"
        ),
        pytest.param(FTYP + box(b"moov") + box(b"mdat", bytes(9), size=5000), Short(5024, 41), id="half of the sound"),
        pytest.param(
            FTYP + box(b"moov") + box(b"mdat", struct.pack(">Q", 1 << 43), size=1),
            Short((1 << 43) + 24, 40),
            id="8 TiB",
        ),
        pytest.param(FTYP + bytes(5000), Short(None, 5016, "its index (moov)"), id="reserved, not written"),
        pytest.param(FTYP + box(b"moov") + box(b"mdat") + b"\0" * 77, Complete(), id="padding at the end"),
        pytest.param(FTYP + b"\0\0\0\x09\x01\x02\x03\x04" * 9, Unknown(), id="not boxes at all"),
        pytest.param(FTYP + box(b"free") * 5000, Unknown(), id="a walk without an end"),
    ],
)
def test_mp4(content, promise):
    """Each box all there, and both the index and the sound among them."""
    assert inspect(Source(content)) == promise


def page(flags, lengths=(10,)):
    return b"OggS\0" + bytes([flags]) + bytes(20) + bytes([len(lengths), *lengths]) + b"x" * sum(lengths)


@pytest.mark.parametrize(
    ("content", "promise"),
    [
        pytest.param(page(2) + page(0) + page(4), Complete(), id="the stream is ended"),
        pytest.param(page(2) + page(0), Unknown(), id="between two pages, as a live recording ends"),
        pytest.param((page(2) + page(0))[:-1], Short(None, 75, "the end of its last page"), id="within a page"),
        pytest.param(page(2) + b"OggS\0\0", Short(None, 44, "the end of its last page"), id="within a page header"),
        pytest.param(page(2) + page(4) + b"some tag", Complete(), id="something after the end"),
        pytest.param(page(2) + bytes(70_000), Unknown(), id="reserved, not written"),
    ],
)
def test_ogg(content, promise):
    """Only a page that is cut through proves that something is missing."""
    assert inspect(Source(content)) == promise


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
WAVE64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
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
    "Wave64: a chunk of 7 bytes": WAVE64 + struct.pack("<Q", 5000) + bytes(16) + b"x" * 16 + struct.pack("<Q", 7),
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
