"""MP3: the first frame may state the number of bytes (Xing, Info, VBRI)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from whisperd.container.source import Damaged, Promise, Unknown

if TYPE_CHECKING:
    from whisperd.container.source import Source

_FRAME_MAX = 1441  # 320 kbit/s at 32 kHz: some encoders count the frame that holds the count, some do not
_FRAMES_GIVEN, _BYTES_GIVEN = 1, 2
_TAGS_MAX = 1 << 20  # some encoders count what follows the sound
_UNUSUAL_TAG = 0xC0  # an extended header or inserted bytes: the first frame is not at the start
_MONO = 3
_ID3V1_BYTES = 128

# A frame of MPEG audio, layer III: neither the forbidden version, bit rate and sample rate, nor the free bit rate.
_RATES = bytes(char for char in range(0x10, 0xF0) if char & 0x0C != 0x0C)  # noqa: PLR2004
FRAME = rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][" + re.escape(_RATES) + b"]."
_FRAME = re.compile(FRAME, re.DOTALL)


def after_id3(source: Source) -> int:
    """Find the end of the ID3v2 tag at the start (id3.org, ID3v2.4.0 section 3.1: a length of four times seven bits)."""
    head = source.read(0, 10)
    size = 0
    for char in head[6:10]:
        size = size << 7 | char & 0x7F
    return 10 + size + (10 if len(head) > 5 and head[5] & 0x10 else 0)  # noqa: PLR2004  # a footer


def bad_id3(source: Source) -> str:
    """Say what is impossible in the ID3v2 tag at the start; empty if nothing is, or it has not arrived yet.

    A length has four times seven bits, and the tag's first frame must fit into the tag.
    """
    head = source.read(0, 20)
    if len(head) < 10:  # noqa: PLR2004
        return ""
    if b"\xff" in head[3:5] or any(char & 0x80 for char in head[6:10]):
        return "the length of its ID3 tag is impossible"
    first, is_old = head[10:], head[3] <= 2  # noqa: PLR2004
    if head[5] & _UNUSUAL_TAG or not first or not any(head[6:10]) or first[0] == 0:
        return ""
    if not re.match(rb"[A-Z0-9]", first):
        return "its ID3 tag does not begin with a frame"
    if len(first) < 10:  # noqa: PLR2004
        return ""
    size = int.from_bytes(first[3:6] if is_old else first[4:8], "big")
    if not is_old and not size & 0x8080_8080:  # version 4 has seven bits a byte, but not every writer knows
        size = min(size, sum((size >> 8 * place & 0x7F) << 7 * place for place in range(4)))
    if size > after_id3(source) - 10 - (6 if is_old else 10):
        return "a part of its ID3 tag is longer than the tag"
    return ""


def holds_one_frame(source: Source) -> bool:
    """Whether the file holds at most one frame of MP3, which is too little for ffmpeg to decode."""
    at = after_id3(source) if source.read(0, 3) == b"ID3" else 0
    return _FRAME.match(source.read(at, 4)) is not None and source.size - at <= _FRAME_MAX + _ID3V1_BYTES


def inspect(source: Source, at: int = 0) -> Promise:
    """Compare the number of bytes, if the first frame states it, with the length of the file."""
    head = source.read(at, 4)
    if not _FRAME.match(head):
        return Unknown()
    newest, mono = head[1] & 0x18 == 0x18, head[3] >> 6 == _MONO  # noqa: PLR2004
    side = (17 if mono else 32) if newest else (9 if mono else 17)
    count: int | None = None
    xing = at + 4 + side
    if source.read(xing, 4) in {b"Xing", b"Info"}:
        flags = source.number(xing + 4, 4) or 0
        if flags & _BYTES_GIVEN:
            count = source.number(xing + 8 + 4 * (flags & 1), 4)
        frames = source.number(xing + 8, 4) if flags & _FRAMES_GIVEN else None
        if count and frames is not None and count > (frames + 1) * _FRAME_MAX + _TAGS_MAX:
            return Damaged("its header counts more bytes than its frames can hold")
    elif source.read(at + 36, 4) == b"VBRI":
        count = source.number(at + 46, 4)
    return source.up_to(at + count, tolerance=_FRAME_MAX) if count else Unknown()
