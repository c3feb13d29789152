"""What single headers promise, built by hand where a real encoder would not make them."""

import struct

import pytest

from whisperd.intake.container import Complete, Short, Source, Unknown, inspect


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
            FTYP + box(b"moov") + box(b"mdat", struct.pack(">Q", 1 << 63), size=1),
            Short((1 << 63) + 24, 40),
            id="8 EiB",
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
