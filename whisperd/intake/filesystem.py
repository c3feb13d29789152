"""Tells whether a directory is on a network filesystem, whose files can change without an event or a lease on this machine."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)

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


class _Statfs(ctypes.Structure):
    _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_byte * 512))  # larger than any struct statfs


def kind(fd: int) -> int:
    """Read the magic number of the filesystem, which `os.statvfs` does not return; 0 if it is not known."""
    result = _Statfs()
    if _libc.fstatfs(fd, ctypes.byref(result)) != 0:
        return 0
    return int(result.f_type) & 0xFFFF_FFFF


def is_remote(fd: int) -> bool:
    """Whether files in a directory can change without this kernel's knowledge."""
    return kind(fd) in REMOTE


def remote_name(path: str | os.PathLike[str]) -> str:
    """Return the name of the filesystem of a directory if it is remote; empty if it is local."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return REMOTE.get(kind(fd), "")
    finally:
        os.close(fd)
