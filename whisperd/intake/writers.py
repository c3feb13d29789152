"""Tells who may still write to an upload: programs that have it open, clients that are connected, and other machines.

- `Leases` asks the kernel. `fcntl(F_SETLEASE, F_RDLCK)` is granted only while no descriptor and no shared mapping of the file
  can write (fcntl(2), "Leases"; `check_conflicting_open` in the kernel's fs/locks.c). It needs the file's owner or CAP_LEASE,
  and a filesystem that supports leases. The lease is returned at once: while it is held, a writer that opens the file has to
  wait.
- `Sessions` tells whether the owner of an upload is connected over SSH or FTP: such a client may come back to a file it has
  closed. rclone asks for the digest, FileZilla sets dates, WinSCP renames, paramiko looks whether the file is there: all by
  name, some moments after the last byte. A client that does not find the file any more reports an error, or sends it again.
  When the connection has ended nobody can come back.
- `is_remote` and `remote_name` know the network filesystems, whose files can change without an event or a lease on this
  machine.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whisperd.spool.durable import Folder

KNOWN_SECONDS = 0.2  # less than the shortest quiet time: who wrote the last byte was connected by then
INIT = "1"  # hidden where the processes of others are
PROCESSES_MAX = 5000  # to look at as many takes 10 to 35 ms
TITLE_BYTES = 256
# argv[0] as the servers set it for a session; a terminal (`sshd: alice@pts/0`) is no upload
_SERVER = re.compile(
    rb"(?:\S*/)?(?:(?:sftp-server|vsftpd|proftpd|pure-ftpd)(?![\w-])|sshd(?:-session)?: \S+@(?:notty|internal-sftp))"
)
PR_CAP_AMBIENT = 47  # prctl(2)
PR_CAP_AMBIENT_CLEAR_ALL = 4
# statfs(2), "f_type"; changes made by another machine, or by the server of a FUSE mount, give no event on these
REMOTE = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB",
    0x65735546: "FUSE",
    0x01021997: "9p",
    0x5346414F: "AFS",
    0x6B414653: "AFS",
    0x73757245: "Coda",
    0x564C: "NCP",
    0x7461636F: "OCFS2",
    0x00C36400: "Ceph",
    0x01161970: "GFS2",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
    0x786F4256: "vboxsf",
    0xBACBACBC: "VMware HGFS",
    0x0187: "autofs",
}
_libc = ctypes.CDLL(None, use_errno=True)


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


def ignore_lease_breaks() -> None:
    """Ignore the signal that the kernel sends when a leased file is opened, which would end the process."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def keep_privilege() -> None:
    """Keep CAP_LEASE in this process: programs that it starts from now on do not get it.

    systemd gives it as an ambient capability, which every program inherits that is started (capabilities(7)), a worker and
    ffmpeg with somebody's recording among them. What this process may do itself does not change.
    """
    zero = ctypes.c_ulong(0)
    _libc.prctl(PR_CAP_AMBIENT, ctypes.c_ulong(PR_CAP_AMBIENT_CLEAR_ALL), zero, zero, zero)


class Sessions:
    """Finds connected users by the processes of this machine, or by systemd-logind if those are hidden or too many.

    The shipped unit hides them (ProtectProc=invisible). logind does not tell an upload from a login by SSH. Where neither can
    be read anybody may be connected.
    """

    def __init__(self, processes: Path = Path("/proc"), logins: Path = Path("/run/systemd/sessions")) -> None:
        self._processes = processes
        self._logins = logins
        self._known: dict[int, tuple[float, bool]] = {}

    def is_connected(self, uid: int) -> bool:
        """Whether a user may have a connection through which files can arrive."""
        now = time.monotonic()
        known = self._known.get(uid)
        if known is None or now - known[0] >= KNOWN_SECONDS:
            self._known[uid] = known = now, self._looked_up(uid)
        return known[1]

    def _looked_up(self, uid: int) -> bool:
        try:
            numbers = [name for name in os.listdir(self._processes) if name.isdecimal()]
            if INIT in numbers and len(numbers) <= PROCESSES_MAX:
                return any(_serves(f"{self._processes}/{number}", uid) for number in numbers)
            return any(_is_remote_login(self._logins / name, uid) for name in os.listdir(self._logins))
        except OSError:
            return True


def is_remote(fd: int) -> bool:
    """Whether files in a directory can change without this kernel's knowledge."""
    return _magic_of(fd) in REMOTE


def remote_name(path: str | os.PathLike[str]) -> str:
    """Return the name of the filesystem of a directory if it is remote; empty if it is local."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return REMOTE.get(_magic_of(fd), "")
    finally:
        os.close(fd)


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


def _serves(process: str, uid: int) -> bool:
    """Whether a process serves a connection of this user."""
    try:
        if os.stat(process).st_uid != uid:
            return False
        fd = os.open(f"{process}/cmdline", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _SERVER.match(os.read(fd, TITLE_BYTES)) is not None
        finally:
            os.close(fd)
    except OSError:
        return False  # it has ended


def _is_remote_login(file: Path, uid: int) -> bool:
    """Whether a session of logind belongs to this user, comes from another machine and is not over."""
    try:
        if not file.is_file():
            return False  # a FIFO
        lines = file.read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    is_remote = fields.get("REMOTE") == "1" or fields.get("SERVICE", "").startswith("sshd")
    return fields.get("UID") == str(uid) and is_remote and fields.get("STATE") != "closing"


class _Statfs(ctypes.Structure):
    _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_byte * 512))  # larger than any struct statfs


def _magic_of(fd: int) -> int:
    """Read the magic number of the filesystem, which `os.statvfs` does not return; 0 if it is not known."""
    result = _Statfs()
    if _libc.fstatfs(fd, ctypes.byref(result)) != 0:
        return 0
    return int(result.f_type) & 0xFFFF_FFFF
