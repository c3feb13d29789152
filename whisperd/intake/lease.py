"""Does anybody have this file open for writing? The kernel knows, and a read lease makes it tell.

`fcntl(F_SETLEASE, F_RDLCK)` is granted only while no descriptor and no shared mapping of the file can write (fcntl(2),
"Leases"; `check_conflicting_open` in the kernel's fs/locks.c). It needs the file's owner or CAP_LEASE, and a filesystem
that does leases. The lease is given back at once: while it is held, an opening writer would wait.
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
    """Survive a writer that comes in the very microsecond of a lease: the signal's default is to end the process."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def keep_privilege() -> None:
    """Keep CAP_LEASE in this process: programs that it starts from now on do not get it.

    systemd gives it as an ambient capability, which every program inherits that is started (capabilities(7)), a worker and
    ffmpeg with somebody's recording among them. What this process may do itself does not change.
    """
    zero = ctypes.c_ulong(0)
    ctypes.CDLL(None).prctl(PR_CAP_AMBIENT, ctypes.c_ulong(PR_CAP_AMBIENT_CLEAR_ALL), zero, zero, zero)


def has_writer(fd: int) -> bool | None:
    """Whether the file, open here for reading only, is open for writing anywhere on this machine.

    None: the kernel does not say, for lack of ownership (EACCES) or of leases on this filesystem (EINVAL).
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


class Leases:
    """Which directories give true answers, found out once for each by a file of our own.

    Trust is kept per directory and mount (device and inode), since one inbox may hold more than one filesystem.
    """

    def __init__(self) -> None:
        self._trusted: dict[tuple[int, int], bool] = {}

    def forget(self) -> None:
        """Try each directory again: the mounts may have changed."""
        self._trusted.clear()

    def has_writer(self, folder: Folder, fd: int) -> bool | None:
        """`has_writer` of a file in this folder; None also where the answer would prove nothing."""
        return has_writer(fd) if self.are_trusted(folder) else None

    def are_trusted(self, folder: Folder) -> bool:
        """Whether a lease here is refused while a file is open for writing, and granted after."""
        status = os.fstat(folder.fd)
        key = status.st_dev, status.st_ino
        if key not in self._trusted:
            # over a network the writer that matters is on another machine, where a lease is not asked for
            self._trusted[key] = not is_remote(folder.fd) and _tells_the_truth(folder)
        return self._trusted[key]


def _tells_the_truth(folder: Folder) -> bool:
    """Try it on a file without a name (O_TMPFILE), which nobody sees and no event tells of."""
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
