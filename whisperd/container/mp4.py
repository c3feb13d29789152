"""MP4, M4A, MOV and 3GP: a sequence of boxes with stated lengths (ISO/IEC 14496-12, 4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.container.source import STEPS_MAX, Complete, Damaged, Promise, Short, Unknown

if TYPE_CHECKING:
    from whisperd.container.source import Source

FIRST_BOXES = frozenset({b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"wide", b"free", b"skip", b"pnot", b"uuid"})
_HEADER, _LONG_HEADER = 8, 16
_FTYP_MAX = 65_536  # a list of names of four letters
_TOO_SHORT = "a box is shorter than its own header"


def inspect(source: Source) -> Promise:
    """Read the boxes of the top level: each must be complete, and index and media must be among them."""
    at = 0
    seen: set[bytes] = set()
    for _ in range(STEPS_MAX):
        if at == source.size:
            return _verdict(source, seen)
        size, kind = source.number(at, 4), source.read(at + 4, 4)
        if size is None or len(kind) < 4:  # noqa: PLR2004
            # A few stray bytes after the last box do no harm.
            whole = seen >= {b"moov", b"mdat"} and b"moof" not in seen
            return Complete() if whole else Short(None, source.size, _missing(seen))
        if not size and not any(kind):  # reserved space that is not written yet, or padding at the end
            return _verdict(source, seen)
        if not all(0x20 <= char < 0x7F or char == 0xA9 for char in kind):  # noqa: PLR2004  # 0xA9 is the (c) of QuickTime
            return Complete() if seen >= {b"moov", b"mdat"} and b"moof" not in seen else Unknown()
        seen.add(kind)
        if size == 1:
            size = source.number(at + 8, 8)
            if size is None or size < _LONG_HEADER:
                return Short(None, source.size, _missing(seen)) if size is None else Damaged(_TOO_SHORT)
        elif size == 0:  # it extends to the end of the file
            return _verdict(source, seen)
        elif size < _HEADER:
            return Damaged(_TOO_SHORT)
        if kind == b"ftyp" and size > _FTYP_MAX:
            return Damaged("the length of its first box is impossible")
        inner = source.number(at + 8, 4) if kind in {b"moov", b"moof"} and source.number(at, 4) != 1 else None
        if inner is not None and size > _HEADER and inner > size - _HEADER:
            return Damaged("a box in its index is longer than the index")
        at += size
        if at > source.size:
            return source.up_to(at)
    return Unknown()


def _verdict(source: Source, seen: set[bytes]) -> Promise:
    if b"moof" in seen and b"mfra" not in seen:
        return Unknown()
    if seen >= {b"moov", b"mdat"}:
        return Complete()
    return Short(None, source.size, _missing(seen))


def _missing(seen: set[bytes]) -> str:
    if b"moof" in seen:
        return "the end of its last fragment"
    return "its sound (mdat)" if b"moov" in seen else "its index (moov)"
