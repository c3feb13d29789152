"""What stands between an upload and its claim: it may have been swapped, its place taken, its folder closed."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from typing import TYPE_CHECKING

from whisperd.errors import ClaimLost, ClaimRefused, SpoolFull
from whisperd.job import Signature, printable
from whisperd.spool import names
from whisperd.spool.durable import is_transient, move

if TYPE_CHECKING:
    from whisperd.spool.durable import Folder


def move_beside(source: Folder, original: str, target: Folder, file: str) -> str:
    """Move a file to the first free name like `file`, `file-2`; returns that."""
    for number in itertools.count(1):
        name = names.numbered(file, number)
        with contextlib.suppress(FileExistsError):
            move(source, original, target, name)
            return name
    raise AssertionError


def expect(inbox: Folder, file: str, seen: Signature) -> None:
    """Open the upload by descriptor: a symlink, a FIFO or another file put in its place is not what had settled."""
    fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=inbox.fd)
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    if not stat.S_ISREG(status.st_mode) or Signature.of(status) != seen:
        raise ClaimLost(f"{printable(file)} changed before it was taken")


def claim_error(error: OSError, name: str) -> Exception:
    """What a failed claim is called: lost, refused until somebody acts, or to be tried again."""
    shown = printable(name)
    if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO}:
        return ClaimLost(f"{shown} went away before it was taken")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return ClaimRefused(
            f"permission denied: {shown}",
            hint="whisperd must be able to read the file (g+r) and to rename it out of its folder (g+wx)",
        )
    if error.errno == errno.EXDEV:
        return ClaimRefused(f"{shown} is on another filesystem", hint="mount the whole spool as one filesystem")
    # EMFILE, EIO, whatever it is: the upload is safe where it lies, and one error must not end the daemon
    hint = "make room" if is_transient(error) else "look into the cause"
    return SpoolFull(f"cannot claim {shown}: {error.strerror}", hint=f"{hint}; whisperd goes on by itself")
