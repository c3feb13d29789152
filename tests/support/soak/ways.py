"""The ways by which a file gets into the inbox; each a generator that yields where it has to wait.

None replaces a file that is there: what a person overwrites in the inbox is her own loss, and would hide the daemon's. A
disk that is full makes them wait with the file open, as a client of a file server does.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PIECES = 3
PAUSE_SECONDS = 0.4  # longer than the quiet time of the daemon under test
NOT_NOW = {errno.ENOSPC, errno.EEXIST}


def copy(target: Path, data: bytes, _staging: Path) -> Iterator[None]:
    """By cp, scp, sftp: under its own name from the first byte on."""
    yield from _written(target, data)


def slow(target: Path, data: bytes, _staging: Path) -> Iterator[None]:
    """The same over a slow line: it stands still for longer than the quiet time."""
    yield from _written(target, data, pieces=PIECES)


def rename(target: Path, data: bytes, staging: Path) -> Iterator[None]:
    """By mv, from another folder of the disk."""
    yield from _written(staging, data)
    yield from _moved(staging, target)


def link(target: Path, data: bytes, staging: Path) -> Iterator[None]:
    """By ln, with the other name gone only later."""
    yield from _written(staging, data)
    yield from _tried(lambda: os.makedirs(target.parent, exist_ok=True))
    yield from _tried(lambda: os.link(staging, target))
    yield from _paused()
    staging.unlink()


def rsync(target: Path, data: bytes, _staging: Path) -> Iterator[None]:
    """A dot file beside it, then renamed."""
    temporary = target.with_name(f".{target.name}.Xy12Zw")
    yield from _written(temporary, data, pieces=PIECES)
    yield from _moved(temporary, target)


def part(target: Path, data: bytes, _staging: Path) -> Iterator[None]:
    """Browsers and download managers."""
    temporary = target.with_name(f"{target.name}.part")
    yield from _written(temporary, data, pieces=PIECES)
    yield from _moved(temporary, target)


WAYS = {each.__name__: each for each in (copy, slow, rename, link, rsync, part)}


def _written(path: Path, data: bytes, pieces: int = 1) -> Iterator[None]:
    yield from _tried(lambda: os.makedirs(path.parent, exist_ok=True))
    with _Opened() as file:
        yield from _tried(lambda: file.open(path))
        size = max(1, -(-len(data) // pieces))
        for start in range(0, len(data), size):
            if start:
                yield from _paused()
            file.left = data[start : start + size]
            while file.left:
                yield from _tried(file.write)


class _Opened:
    """A new file that keeps what it could not write yet."""

    left: bytes = b""
    _fd: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def open(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def write(self) -> None:
        assert self._fd is not None
        self.left = self.left[os.write(self._fd, self.left) :]


def _moved(source: Path, target: Path) -> Iterator[None]:
    """A rename that replaces nothing; the moment with two names is too short to settle in."""
    yield from _tried(lambda: os.makedirs(target.parent, exist_ok=True))
    yield from _tried(lambda: os.link(source, target))
    source.unlink()


def _tried(action: Callable[[], object]) -> Iterator[None]:
    while True:
        try:
            action()
        except OSError as error:
            if error.errno not in NOT_NOW:
                raise
            yield
        else:
            return


def _paused() -> Iterator[None]:
    until = time.monotonic() + PAUSE_SECONDS
    while time.monotonic() < until:
        yield
