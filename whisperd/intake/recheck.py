"""Is the original, after the run, still what the worker read? A writer that had it open when it was claimed may go on."""

from __future__ import annotations

import hashlib
import os
from enum import Enum, auto
from typing import TYPE_CHECKING

from whisperd.intake.lease import Leases
from whisperd.job import Signature
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from pathlib import Path

    from whisperd.job import Job

HASH_MAX_BYTES = 2 << 30  # a few seconds of reading; the loop must not stand still for longer
_BLOCK_BYTES = 1 << 20


class State(Enum):
    """What a second look at an original shows."""

    SAME = auto()
    WRITER = auto()  # the same so far, but somebody has it open for writing
    CHANGED = auto()


def recheck(directory: Path, job: Job, sha256: str) -> State:
    """Compare the original in a job's directory with what it was when the attempt started.

    Blocks do not count, the filesystem allocates late. A new ctime alone (chmod, a backup, or data written with mtime set
    back) is decided by the content.

    Raises:
        OSError: it cannot be read.
    """
    with Folder(directory) as folder:
        fd = os.open(job.original, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder.fd)
        try:
            now, then = Signature.of(os.fstat(fd)), job.signature
            if now.size != then.size or now.inode != then.inode:
                return State.CHANGED
            stamps_differ = (now.mtime_ns, now.ctime_ns) != (then.mtime_ns, then.ctime_ns)
            if stamps_differ and (now.size > HASH_MAX_BYTES or _sha256(fd, now.size) != sha256):
                return State.CHANGED
            return State.WRITER if Leases().has_writer(folder, fd) else State.SAME
        finally:
            os.close(fd)


def _sha256(fd: int, size: int) -> str:
    """Of so many bytes: a writer that goes on appending must not keep the reader for ever."""
    digest = hashlib.sha256()
    at = 0
    while at < size and (block := os.pread(fd, min(_BLOCK_BYTES, size - at), at)):
        digest.update(block)
        at += len(block)
    return digest.hexdigest()
