"""What chunks and pages promise, built by hand because no encoder makes them all."""

import pytest
from support.containers import wav

from whisperd.container import Complete, Short, Source, Unknown, inspect


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
