"""The one place where state is written: atomic files, moves that never overwrite, directories made durable.

Everything works on open directories (`Folder`), never on paths that somebody could swap for a symlink between a check
and its use. An fsync that fails is not repeated: Linux marks the pages clean after the error (fsync(2), "Errors"), so a
second call would succeed and prove nothing; the caller starts over with a fresh file.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import signal
import stat
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

AT_FDCWD = -100
RENAME_NOREPLACE = 1
TRANSIENT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS, errno.ETIMEDOUT})

_libc = ctypes.CDLL(None, use_errno=True)
_failpoint, _, _failpoint_hits = os.environ.get("WHISPERD_FAILPOINT", "").partition(":")
_hits_left = int(_failpoint_hits or 1)


def failpoint(name: str) -> None:
    """Die by SIGKILL here if `WHISPERD_FAILPOINT` is `name` or `name:N` (the Nth time); how tests prove each step safe."""
    global _hits_left  # noqa: PLW0603  # a counter that lives as long as the process it kills
    if _failpoint and name == _failpoint:
        _hits_left -= 1
        if _hits_left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Folder:
    """An open directory, reached without following a symlink below `root`; a context manager.

    Raises:
        OSError: ENOENT, ENOTDIR or ELOOP when a part is missing, is no directory or is a symlink.
    """

    def __init__(self, root: Path, parts: Sequence[str] = (), *, create: bool = False) -> None:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                if create:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, dir_fd=fd)
                        _sync_directory(fd)
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        self.fd = fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self.fd)

    def exists(self, name: str) -> bool:
        """Whether anything stands under this name, a dangling symlink included."""
        try:
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return False
            raise
        return True

    def read(self, name: str, limit: int = 4 << 20) -> bytes:
        """The first `limit` bytes of a regular file; anything else, a FIFO for one, must not hang or mislead the reader."""
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a regular file", name)
            return file.read(limit)

    def sync(self) -> None:
        """Make renames and new names in this directory survive a power cut."""
        _sync_directory(self.fd)


def _sync_directory(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network filesystems cannot sync a directory; EIO must be heard
            raise


def write(
    folder: Folder, name: str, data: bytes, *, staging: Folder | None = None, sync: bool = True, replace: bool = True
) -> None:
    """Give `name` the content `data` in one step: a reader sees the old content or the new, never a part.

    Args:
        folder: where the file stands.
        name: its name there.
        data: its whole content.
        staging: where the temporary file is made (same filesystem), so that a crash leaves no litter among a user's files.
        sync: wait until content and name are on the disk; without it a power cut may bring the old content back.
        replace: whether something may stand there already.

    Raises:
        FileExistsError: something stands there and `replace` is off.
        OSError: no room, or whatever else; `name` is as it was.
    """
    staging = staging or folder
    temporary = f".{secrets.token_hex(8)}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=staging.fd)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            share(fd, folder)
            if sync:
                os.fsync(fd)
        if replace:
            os.rename(temporary, name, src_dir_fd=staging.fd, dst_dir_fd=folder.fd)
        else:
            _rename_no_replace(staging.fd, temporary, folder.fd, name)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=staging.fd)
        raise
    if sync:
        folder.sync()


def share(fd: int, folder: Folder) -> None:
    """Give a file made elsewhere the group that a setgid directory would have given it, so that people there may read it."""
    directory = os.fstat(folder.fd)
    if directory.st_mode & stat.S_ISGID and os.fstat(fd).st_gid != directory.st_gid:
        with contextlib.suppress(PermissionError):
            os.fchown(fd, -1, directory.st_gid)


def move(source: Folder, name: str, target: Folder, new_name: str) -> None:
    """Rename without ever overwriting, and make both directories durable.

    Raises:
        FileExistsError: `new_name` is taken; nothing was moved.
        OSError: EXDEV when the two are on different mounts, and whatever else rename(2) says.
    """
    _rename_no_replace(source.fd, name, target.fd, new_name)
    target.sync()
    source.sync()


def _rename_no_replace(source: int, name: str, target: int, new_name: str) -> None:
    result = _libc.renameat2(source, os.fsencode(name), target, os.fsencode(new_name), RENAME_NOREPLACE)
    if result == 0:
        return
    code = ctypes.get_errno()
    if code not in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
        raise OSError(code, os.strerror(code), name, None, new_name)
    try:  # NFS and some FUSE filesystems lack the flag; link(2) is as exclusive
        os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except FileExistsError:
        ours = os.stat(name, dir_fd=source, follow_symlinks=False)
        if not os.path.samestat(ours, os.stat(new_name, dir_fd=target, follow_symlinks=False)):
            raise
        os.unlink(name, dir_fd=source)  # an earlier try was cut off between the link and this
    except PermissionError:
        # fs.protected_hardlinks forbids links to other people's files: reserve the name, then rename over the reservation
        fd = os.open(new_name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, dir_fd=target)
        os.close(fd)
        try:
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        except BaseException:
            os.unlink(new_name, dir_fd=target)
            raise
    else:
        os.unlink(name, dir_fd=source)


def remove_tree(folder: Folder, name: str) -> None:
    """Remove a directory and all below it, never following a symlink; nothing there is fine."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(name, dir_fd=folder.fd)
    folder.sync()


def make_directory(path: Path) -> None:
    """Create a directory and its parents, each name durable; one that is there is fine."""
    if path.is_dir():
        return
    make_directory(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    with Folder(path.parent) as parent:
        parent.sync()


def is_transient(error: OSError) -> bool:
    """Whether waiting can help: no room, quota, an I/O error, a stale handle, a read-only remount."""
    return error.errno in TRANSIENT
