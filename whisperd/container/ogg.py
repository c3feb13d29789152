"""Ogg: pages of at most 65,307 bytes; the last one of a stream says so (RFC 3533)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.container.source import Complete, Promise, Short, Unknown

if TYPE_CHECKING:
    from whisperd.container.source import Source

_PAGE_MAX = 27 + 255 + 255 * 255
_END_OF_STREAM = 4


def inspect(source: Source) -> Promise:
    """Look for the last page: it must be all there, and only if it ends a stream is more than that known."""
    start = max(0, source.size - _PAGE_MAX)
    tail = source.read(start, _PAGE_MAX)
    at = len(tail)
    while (at := tail.rfind(b"OggS\x00", 0, at)) >= 0:
        header = tail[at : at + 27]
        if len(header) < 27:  # noqa: PLR2004
            return Short(None, source.size, "the end of its last page")
        lengths = tail[at + 27 : at + 27 + header[26]]
        end = start + at + 27 + header[26] + sum(lengths)
        if len(lengths) < header[26] or end > source.size:
            return Short(None, source.size, "the end of its last page")
        return Complete() if header[5] & _END_OF_STREAM else Unknown()
    return Unknown()
