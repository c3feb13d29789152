"""Formats made of chunks or pages that state their lengths: RIFF, Wave64, AIFF, CAF, ASF, Ogg."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.container.source import STEPS_MAX, Complete, Damaged, Promise, Short, Unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.container.source import Source

# Programs that write to a pipe, or that died, leave 0, all ones, or (sox, arecord) about 2 GiB.
UNKNOWN_FROM_32 = 0x7FFF_0000
UNKNOWN_FROM_64 = 1 << 62

W64_RIFF = bytes.fromhex("72696666 2e91 cf11 a5d6 28db04c10000")  # Sony Wave64 specification
_W64_DATA = bytes.fromhex("64617461 f3ac d311 8cd1 00c04f8edb8a")
ASF_HEADER = bytes.fromhex("3026b275 8e66 cf11 a6d9 00aa0062ce6c")  # ASF specification 10.1
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c 47a9 cf11 8ee4 00c00c205365")  # likewise, fields in 3.2
_ASF_HEADER_MAX = 65_536
_OGG_PAGE_MAX = 27 + 255 + 255 * 255
_OGG_END_OF_STREAM = 4
_FORMAT_MAX = 1 << 17  # `fmt ` and `COMM`: fixed fields, and an extension or a name whose length has 16 bits or less


def riff(source: Source) -> Promise:
    """Check a WAV, its 64-bit form (EBU Tech 3306) or an AVI.

    In a WAV only the chunk with the sound counts, because some writers state the outer size wrong by a few bytes.
    """
    outer = source.number(4, 4, little=True)
    form = source.read(8, 4)
    if any(form) and not all(0x20 <= char < 0x7F for char in form):  # noqa: PLR2004
        return Damaged("its RIFF header names no kind of content")
    if form != b"WAVE":
        if not outer or outer >= UNKNOWN_FROM_32:
            return Unknown()
        first = source.number(16, 4, little=True)
        if first is not None and first > outer:
            return Damaged("its first chunk is longer than the whole file would be")
        return source.up_to(outer + 8, tolerance=8)
    long_file: int | None = None
    long_data: int | None = None
    for kind, start, size in _chunks(source, 12, little=True):
        if kind == b"ds64":
            long_file, long_data = (source.number(start + at, 8, little=True) for at in (0, 8))
        if kind == b"fmt " and (reason := _bad_format(source, start, size)):
            return Damaged(reason)
        if kind == b"data":
            if size == 0xFFFF_FFFF and long_data is not None:  # noqa: PLR2004
                return source.up_to(start + long_data if 0 < long_data < UNKNOWN_FROM_64 else None)
            return source.up_to(start + size if 0 < size < UNKNOWN_FROM_32 else None)
    if long_file and long_file < UNKNOWN_FROM_64:
        return source.up_to(long_file + 8)
    if outer and outer < UNKNOWN_FROM_32 and outer + 8 > source.size:
        return Short(outer + 8, source.size)
    return Unknown()


def aiff(source: Source) -> Promise:
    """Check an AIFF or AIFF-C (Apple, Audio Interchange File Format 1.3)."""
    outer = source.number(4, 4)
    if source.read(8, 4) not in {b"AIFF", b"AIFC"} or not outer or outer >= UNKNOWN_FROM_32:
        return Unknown()
    for kind, start, size in _chunks(source, 12, little=False):
        if kind == b"COMM" and not 18 <= size <= _FORMAT_MAX:  # noqa: PLR2004
            return Damaged("the length of its chunk COMM is impossible")
        if kind == b"SSND":
            if 0 < size < 8:  # noqa: PLR2004
                return Damaged("the length of its chunk SSND is impossible")
            return source.up_to(start + size if 0 < size < UNKNOWN_FROM_32 else None)
    return source.up_to(outer + 8)


def caf(source: Source) -> Promise:
    """Check a CAF up to its chunk `data`, whose length -1 means "to the end of the file" (Apple Core Audio Format)."""
    at = 8
    for _ in range(STEPS_MAX):
        head = source.read(at, 12)
        if len(head) < 12:  # noqa: PLR2004
            return Short(None, source.size, "its sound")
        size = int.from_bytes(head[4:], "big", signed=True)
        if at == 8 and any(head) and (head[:4] != b"desc" or size != 32):  # noqa: PLR2004
            return Damaged("it does not begin with a description of the sound")
        if size < 0:
            is_open = head[:4] == b"data" and size == -1
            return Unknown() if is_open else Damaged("a chunk in its header has a negative length")
        at += 12 + size
        if head[:4] == b"data" or at > source.size:
            return source.up_to(at)
    return Unknown()


def w64(source: Source) -> Promise:
    """Check a Wave64: sizes include the 24 bytes of the chunk's header, and chunks start at multiples of 8."""
    at = 40
    for _ in range(STEPS_MAX):
        kind, size = source.read(at, 16), source.number(at + 16, 8, little=True)
        if size is None:
            return source.up_to(_long(source.number(16, 8, little=True)))
        if size < 24:  # noqa: PLR2004
            return Damaged("a chunk is shorter than its own header") if size else Unknown()
        if kind == _W64_DATA:
            return source.up_to(at + size if 24 < size < UNKNOWN_FROM_64 else None)  # noqa: PLR2004
        at += size + -size % 8
    return Unknown()


def asf(source: Source) -> Promise:
    """Check a WMA or WMV by the size in its properties, unless a flag says that it is a broadcast."""
    header, first = source.number(16, 8, little=True), source.number(46, 8, little=True)
    if header and header < UNKNOWN_FROM_64 and (header < 30 or (first is not None and first > header - 30)):  # noqa: PLR2004
        return Damaged("its header is shorter than its own first part")
    head = source.read(0, _ASF_HEADER_MAX)
    at = head.find(_ASF_FILE_PROPERTIES)
    if at < 0:
        return source.up_to(_long(source.number(16, 8, little=True)))
    size, flags = source.number(at + 40, 8, little=True), source.number(at + 88, 4, little=True)
    if flags is None:
        return Short(None, source.size, "its header")
    if size and header and size < header and not flags & 1:
        return Damaged("its header is longer than the whole file would be")
    return source.up_to(None if flags & 1 else _long(size))


def ogg(source: Source) -> Promise:
    """Find the last page: it must be complete, and if it ends the stream, the file is complete.

    Pages have at most 65,307 bytes (RFC 3533).
    """
    start = max(0, source.size - _OGG_PAGE_MAX)
    tail = source.read(start, _OGG_PAGE_MAX)
    at = len(tail)
    while (at := tail.rfind(b"OggS\x00", 0, at)) >= 0:
        header = tail[at : at + 27]
        if len(header) < 27:  # noqa: PLR2004
            return Short(None, source.size, "the end of its last page")
        lengths = tail[at + 27 : at + 27 + header[26]]
        end = start + at + 27 + header[26] + sum(lengths)
        if len(lengths) < header[26] or end > source.size:
            return Short(None, source.size, "the end of its last page")
        return Complete() if header[5] & _OGG_END_OF_STREAM else Unknown()
    return Unknown()


def _bad_format(source: Source, start: int, size: int) -> str:
    """Say what is impossible in the chunk `fmt ` of a WAV; empty if nothing is."""
    if not 14 <= size <= _FORMAT_MAX:  # noqa: PLR2004
        return "the length of its chunk fmt is impossible" if size else ""
    fields = source.read(start, 14)
    if len(fields) == 14 and any(fields):  # noqa: PLR2004
        if not any(fields[2:4]):
            return "its header states no channels"
        if not any(fields[4:8]):
            return "its header states a sample rate of 0"
    return ""


def _chunks(source: Source, at: int, *, little: bool) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk's name, the offset of its content and its length; an odd length is followed by a byte of padding."""
    for _ in range(STEPS_MAX):
        kind, size = source.read(at, 4), source.number(at + 4, 4, little=little)
        if size is None:
            return
        yield kind, at + 8, size
        at += 8 + size + size % 2


def _long(size: int | None) -> int | None:
    return size if size and size < UNKNOWN_FROM_64 else None
