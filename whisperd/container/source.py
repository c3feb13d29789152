"""Reads a file at given offsets, and defines the answers to "is it complete?"."""

from __future__ import annotations

import os
from dataclasses import dataclass

STEPS_MAX = 4096  # boxes, chunks or elements read before the answer is Unknown
LONGEST_FILE = 1 << 50  # 1 PiB: a header that states more is damaged; nobody should wait for the rest


@dataclass(frozen=True, slots=True)
class Complete:
    """The file has everything that its header promises."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The format, or this header, promises nothing that can be checked."""


@dataclass(frozen=True, slots=True)
class Short:
    """The end of the file, or a part of it, is missing.

    Attributes:
        promised_bytes: how long the file should be; None if the header does not say.
        present_bytes: how long it is.
        missing: the missing part, in words, if no length is promised.
    """

    promised_bytes: int | None
    present_bytes: int
    missing: str = "its end"


@dataclass(frozen=True, slots=True)
class Damaged:
    """The header contradicts itself or its format, so that no file can be what it describes.

    Attributes:
        reason: what is wrong, in words that follow a colon.
    """

    reason: str


Promise = Complete | Unknown | Short | Damaged


class Source:
    """A file, or bytes, read at given offsets; reads past the end return less, and impossible offsets nothing."""

    def __init__(self, content: int | bytes, size: int | None = None) -> None:
        self._content = content
        self.size = size if size is not None else len(content) if isinstance(content, bytes) else 0

    def read(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at `offset`."""
        if offset < 0 or offset >= self.size:
            return b""
        if isinstance(self._content, bytes):
            return self._content[offset : offset + length]
        return os.pread(self._content, min(length, self.size - offset), offset)

    def number(self, offset: int, width: int, *, little: bool = False) -> int | None:
        """Read an unsigned integer; None if the file ends within it."""
        data = self.read(offset, width)
        return int.from_bytes(data, "little" if little else "big") if len(data) == width else None

    def up_to(self, promised: int | None, *, tolerance: int = 0) -> Promise:
        """Compare the length of the file with a promise; Unknown without one, or if no more than the tolerance is missing."""
        if promised is None:
            return Unknown()
        if promised > LONGEST_FILE:
            return Damaged("its header states a length that no file can have")
        if self.size >= promised:
            return Complete()
        return Unknown() if self.size + tolerance >= promised else Short(promised, self.size)
