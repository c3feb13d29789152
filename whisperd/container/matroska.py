"""Matroska and WebM: nested elements with lengths of variable width (RFC 8794), in one segment (RFC 9559)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.container.source import STEPS_MAX, Damaged, Promise, Short, Unknown

if TYPE_CHECKING:
    from whisperd.container.source import Source

_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_HEADER_MAX = 65_536  # the first element names the format, and little else


def inspect(source: Source) -> Promise:
    """Check a segment of known length as a whole, and one of unknown length element by element."""
    at = 0
    for _ in range(STEPS_MAX):
        element = _element(source, at)
        if element is None:
            return Short(None, source.size, "its header") if at == source.size or at < 64 else Unknown()  # noqa: PLR2004
        kind, start, size = element
        if kind == _SEGMENT:
            if size is None:
                return _live(source, start)
            first = _element(source, start)
            if first and first[2] is not None and first[1] + first[2] > start + size:
                return Damaged("its first element is longer than the whole file would be")
            return source.up_to(start + size)
        if at == 0 and size is not None and size > _HEADER_MAX:
            return Damaged("the length of its header is impossible")
        if size is None:
            return Unknown()
        at = start + size
        if at > source.size:
            return source.up_to(at)
    return Unknown()


def _live(source: Source, at: int) -> Promise:
    for _ in range(STEPS_MAX):
        if at == source.size:
            return Unknown()
        element = _element(source, at)
        if element is None:
            return Unknown()
        kind, start, size = element
        if size is None and kind != _CLUSTER:
            return Unknown()
        at = start if size is None else start + size  # the blocks of a cluster of unknown length follow on this level
        if at > source.size:
            return Short(None, source.size, "the end of its last cluster")
    return Unknown()


def _element(source: Source, at: int) -> tuple[int, int, int | None] | None:
    """Read an element: its id, where its content starts, and its length (None: unknown); None if there is no element."""
    head = source.read(at, 12)
    id_width = _width(head, 4)
    length_width = _width(head[id_width:], 8)
    if not id_width or not length_width or len(head) < id_width + length_width:
        return None
    ones = (1 << (7 * length_width)) - 1
    length = int.from_bytes(head[id_width : id_width + length_width], "big") & ones
    kind = int.from_bytes(head[:id_width], "big")
    return kind, at + id_width + length_width, None if length == ones else length


def _width(head: bytes, most: int) -> int:
    """Number of bytes of a number, told by its leading zero bits; 0 if it is invalid."""
    width = 9 - head[0].bit_length() if head and head[0] else 0
    return width if width <= most else 0
