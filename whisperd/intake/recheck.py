"""Compares an original after its run with what the worker read: a writer that had it open may have continued.

Reading is done block by block, so that the loop of the supervisor can do other things in between.
"""

from __future__ import annotations

import hashlib
import os
from enum import Enum, auto
from typing import TYPE_CHECKING

from whisperd.core.job import Signature
from whisperd.intake.lease import Leases
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whisperd.core.job import Job

BLOCK_BYTES = 1 << 16  # a slow disk (10 MB/s) reads one in 7 ms


class OriginalState(Enum):
    """The result of the second comparison of an original."""

    SAME = auto()
    WRITER = auto()  # the same so far, but somebody has it open for writing
    CHANGED = auto()


def recheck(directory: Path, job: Job, sha256: str) -> Iterator[OriginalState | None]:
    """Compare the original in a job's directory with its state when the attempt started.

    Blocks do not count, the filesystem allocates late. A new ctime alone (chmod, a backup, or data written with mtime set
    back) is decided by the content.

    Yields:
        None for each block that was read, then the state.

    Raises:
        OSError: it cannot be read.
    """
    with Folder(directory) as folder:
        fd = os.open(job.original, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder.fd)
        try:
            before = Signature.of(os.fstat(fd))
            content: str | None = sha256
            if not _is_of_same_length(before, job.signature):
                content = None
            elif _stamps(before) != _stamps(job.signature):
                for content in read_sha256(fd, before.size):
                    if content is None:
                        yield None
            after = Signature.of(os.fstat(fd))
            if content != sha256 or not _is_of_same_length(after, before):
                yield OriginalState.CHANGED
            elif _stamps(after) != _stamps(before) or Leases().has_writer(folder, fd):
                yield OriginalState.WRITER  # what was written behind the reader is found by the next look
            else:
                yield OriginalState.SAME
        finally:
            os.close(fd)


def read_sha256(fd: int, size: int) -> Iterator[str | None]:
    """Compute the SHA-256 of a file in steps: yields None for each block, then the hexadecimal digest.

    No more than `size` bytes are read: a writer that appends must not keep the reader forever.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    at = 0
    while at < size and (block := os.pread(fd, min(BLOCK_BYTES, size - at), at)):
        digest.update(block)
        at += len(block)
        yield None
    yield digest.hexdigest()


def _is_of_same_length(one: Signature, other: Signature) -> bool:
    return (one.size, one.inode) == (other.size, other.inode)


def _stamps(signature: Signature) -> tuple[int, int]:
    return signature.mtime_ns, signature.ctime_ns
