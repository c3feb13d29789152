"""Asks the kernel, by a read lease, whether anybody has a file open for writing.

`fcntl(F_SETLEASE, F_RDLCK)` is granted only while no descriptor and no shared mapping of the file can write (fcntl(2),
"Leases"; `check_conflicting_open` in the kernel's fs/locks.c). It needs the file's owner or CAP_LEASE, and a filesystem
that supports leases. The lease is returned at once: while it is held, a writer that opens the file has to wait.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import tempfile
from typing import TYPE_CHECKING

from whisperd.intake.filesystem import is_remote

if TYPE_CHECKING:
    from whisperd.spool.durable import Folder

PR_CAP_AMBIENT = 47  # prctl(2)
PR_CAP_AMBIENT_CLEAR_ALL = 4


def ignore_lease_breaks() -> None:
    """Ignore the signal that the kernel sends when a leased file is opened, which would end the process."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def keep_privilege() -> None:
    """Keep CAP_LEASE in this process: programs that it starts from now on do not get it.

    systemd gives it as an ambient capability, which every program inherits that is started (capabilities(7)), a worker and
    ffmpeg with somebody's recording among them. What this process may do itself does not change.
    """
    zero = ctypes.c_ulong(0)
    ctypes.CDLL(None).prctl(PR_CAP_AMBIENT, ctypes.c_ulong(PR_CAP_AMBIENT_CLEAR_ALL), zero, zero, zero)


def has_writer(fd: int) -> bool | None:
    """Whether a file that is open here for reading is open for writing anywhere on this machine.

    None: the kernel does not tell, since the file is not ours (EACCES) or its filesystem has no leases (EINVAL).
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


class Leases:
    """Asks for writers only in directories where the answer is true, which a file of our own has shown once for each.

    The result is kept by device and inode of the directory, since an inbox may contain several filesystems.
    """

    def __init__(self) -> None:
        self._trusted: dict[tuple[int, int], bool] = {}

    def forget(self) -> None:
        """Test each directory again, because mounts may have changed."""
        self._trusted.clear()

    def has_writer(self, folder: Folder, fd: int) -> bool | None:
        """Whether a file in this folder is open for writing; None where that cannot be known."""
        return has_writer(fd) if self.are_trusted(folder) else None

    def are_trusted(self, folder: Folder) -> bool:
        """Whether leases work in a folder: refused while a file is open for writing, granted afterwards."""
        status = os.fstat(folder.fd)
        key = status.st_dev, status.st_ino
        if key not in self._trusted:
            # on a network filesystem the writer may be on another machine, of which a lease here tells nothing
            self._trusted[key] = not is_remote(folder.fd) and _tells_the_truth(folder)
        return self._trusted[key]


def _tells_the_truth(folder: Folder) -> bool:
    """Test leases with a file that has no name (O_TMPFILE), so that nobody sees it and it causes no event."""
    here = f"/proc/self/fd/{folder.fd}"
    try:
        # the dot at the end: tempfile would not follow the link itself (O_NOFOLLOW), and make a file with a name instead;
        # the dot at the start: where the filesystem has no files without names, this one is still ignored as an upload
        with tempfile.TemporaryFile(dir=f"{here}/.", prefix=".whisperd-") as ours:
            reader = os.open(f"/proc/self/fd/{ours.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                seen = has_writer(reader)
                ours.close()
                return seen is True and has_writer(reader) is False
            finally:
                os.close(reader)
    except OSError:
        return False
