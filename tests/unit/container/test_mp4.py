"""What the boxes of an MP4 promise."""

import struct

import pytest
from support.containers import FTYP, box

from whisperd.container import Complete, Short, Source, Unknown, inspect


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
