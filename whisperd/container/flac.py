"""FLAC (RFC 9639): the header states the number of samples, and the last frame in the file tells how many there are."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, NamedTuple

from whisperd.container.source import STEPS_MAX, Complete, Damaged, Promise, Short, Unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.container.source import Source

_TAIL = 65_536
_ID3V1_BYTES = 128
_STREAMINFO_BYTES = 34
_STREAMINFO, _COMMENT, _PICTURE, _FORBIDDEN = 0, 4, 6, 127
_SYNC = re.compile(b"\xff[\xf8\xf9]")


class _Stream(NamedTuple):
    block_size: int
    total_samples: int


def inspect(source: Source, start: int = 0) -> Promise:
    """Find the last frame and check whether it reaches the promised number of samples."""
    info = source.read(start + 8, _STREAMINFO_BYTES)
    frames_at = _after_metadata(source, start)
    if isinstance(frames_at, Damaged):
        return frames_at
    if len(info) == _STREAMINFO_BYTES and any(info) and not int.from_bytes(info[10:13], "big") >> 4:
        return Damaged("its header states a sample rate of 0")
    if len(info) < _STREAMINFO_BYTES or frames_at is None:
        return Short(None, source.size, "its header")
    if frames_at > source.size:
        return Short(frames_at, source.size)
    largest = int.from_bytes(info[2:4], "big")
    stream = _Stream(largest, int.from_bytes(info[13:18], "big") & (1 << 36) - 1)
    if not stream.total_samples:
        return Unknown()
    if frames_at == source.size:
        return Short(None, source.size, "its sound")
    begin = max(frames_at, source.size - _TAIL)
    tail = source.read(begin, _TAIL)
    if tail[-_ID3V1_BYTES:].startswith(b"TAG"):
        tail = tail[:-_ID3V1_BYTES]
    at, end = max(_frames(tail, stream), key=lambda frame: frame[1], default=(0, 0))
    if not end:
        return Unknown()
    if end < stream.total_samples:
        promised = frames_at + (source.size - frames_at) * stream.total_samples // end
        return Short(max(promised, source.size + 1), source.size)
    return Complete() if _crc16(tail[at:]) == 0 else Unknown()


def _after_metadata(source: Source, start: int) -> int | Damaged | None:
    at = start + 4
    for step in range(STEPS_MAX):
        head = source.read(at, 4)
        if len(head) < 4:  # noqa: PLR2004
            return None
        if any(head) and (reason := _bad_block(source, at, is_first=step == 0)):
            return Damaged(reason)
        at += 4 + int.from_bytes(head[1:], "big")
        if head[0] & 0x80 or at > source.size:
            return at
    return None


def _bad_block(source: Source, at: int, *, is_first: bool) -> str:
    """Say what is impossible in a block of metadata (RFC 9639, section 8); empty if nothing is, or it has not arrived yet."""
    head = source.read(at, 4)
    kind, size = head[0] & 0x7F, int.from_bytes(head[1:], "big")
    if is_first != (kind == _STREAMINFO) or (is_first and size != _STREAMINFO_BYTES):
        return "it does not begin with one description of the sound"
    if kind == _FORBIDDEN:
        return "it has a block of a forbidden type"
    if kind == _COMMENT:
        vendor = source.number(at + 4, 4, little=True)
        return "a tag in its header is longer than all tags together" if vendor and vendor + 8 > size else ""
    if kind == _PICTURE:
        needed = 32  # eight numbers; the name of the format, the description and the picture itself come in addition
        for place in (8, 12, 32):
            length = source.number(at + needed - 32 + place, 4)
            needed += length or 0
            if needed > size:
                return "a picture in its header is longer than the space for it"
            if length is None:
                break
    return ""


def _frames(data: bytes, stream: _Stream) -> Iterator[tuple[int, int]]:
    """Yield where each frame begins in `data`, and the number of samples up to its end; checksums exclude false matches."""
    for found in itertools.islice(_SYNC.finditer(data), STEPS_MAX):
        at = found.start()
        head = data[at : at + 16]
        if len(head) < 6 or head[3] & 1:  # noqa: PLR2004
            continue
        number, width = _coded_number(head[4:])
        length = _block_length(head, 4 + width, stream.block_size)
        if not width or length is None:
            continue
        samples, after = length
        after += {12: 1, 13: 2, 14: 2}.get(head[2] & 0x0F, 0)
        if len(head) <= after or _crc8(head[:after]) != head[after]:
            continue
        first = number if head[1] & 1 else number * stream.block_size
        if first + samples <= stream.total_samples:
            yield at, first + samples


def _coded_number(data: bytes) -> tuple[int, int]:
    """Decode a number of up to 36 bits, coded like UTF-8, and its width in bytes; the width is 0 if there is none."""
    first = data[0]
    if first < 0x80:  # noqa: PLR2004
        return first, 1
    width = 8 - (first ^ 0xFF).bit_length()
    rest = data[1:width]
    if width < 2 or width > 7 or len(rest) < width - 1 or any(char & 0xC0 != 0x80 for char in rest):  # noqa: PLR2004
        return 0, 0
    number = first & (0x7F >> width)
    for char in rest:
        number = number << 6 | char & 0x3F
    return number, width


def _block_length(head: bytes, at: int, fixed: int) -> tuple[int, int] | None:
    """The number of samples in a frame, and where its header continues (RFC 9639, table 14)."""
    code = head[2] >> 4
    match code:
        case 0:
            return None
        case 1:
            return 192, at
        case 6 | 7:
            width = code - 5
            return (int.from_bytes(head[at : at + width], "big") + 1, at + width) if len(head) >= at + width else None
    length = 576 << code - 2 if code <= 5 else 256 << code - 8  # noqa: PLR2004
    return (length, at) if length <= max(fixed, 16) else None


def _crc_table(polynomial: int, bits: int) -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = value << 1 ^ (polynomial if value >> bits - 1 else 0)
            value &= (1 << bits) - 1
        table.append(value)
    return tuple(table)


_CRC8, _CRC16 = _crc_table(0x07, 8), _crc_table(0x8005, 16)


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value = _CRC8[value ^ byte]
    return value


def _crc16(data: bytes) -> int:
    """CRC of data; 0 for a whole frame including its own checksum."""
    value = 0
    for byte in data:
        value = value << 8 & 0xFFFF ^ _CRC16[value >> 8 ^ byte]
    return value
