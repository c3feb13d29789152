"""Writes all state: files that are replaced in one step, moves that never overwrite, directories that are made durable.

Everything works on open directories (`Folder`), never on paths that somebody could swap for a symlink between a check
and its use. An fsync that fails is not repeated: Linux marks the pages clean after the error (fsync(2), "Errors"), so a
second call would succeed and prove nothing; the caller starts again with a fresh file.
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
    from typing import BinaryIO

AT_FDCWD = -100
RENAME_NOREPLACE = 1
RESERVED_MODE = stat.S_ISVTX  # of a file that reserves a name until the rename; nobody may open it
TRANSIENT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS, errno.ETIMEDOUT})
NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})  # the errors of a `Folder` whose path does not exist

_BLOCK_BYTES = 1 << 20

_noreplace: dict[int, bool] = {}  # device -> whether renameat2(2) knows RENAME_NOREPLACE there

_libc = ctypes.CDLL(None, use_errno=True)
_failpoint, _, _failpoint_hits = os.environ.get("WHISPERD_FAILPOINT", "").partition(":")
_hits_left = int(_failpoint_hits or 1)


def failpoint(name: str) -> None:
    """Kill this process here if `WHISPERD_FAILPOINT` is `name` or `name:N` (the Nth time): tests prove each step safe with it."""
    global _hits_left  # noqa: PLW0603  # a counter of the process that it kills
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
        """Whether anything has this name; a dangling symlink counts."""
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
        """Read the first `limit` bytes of a regular file; anything else is an error, since a FIFO would block the reader."""
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, "not a regular file", name)
        with os.fdopen(fd, "rb") as file:
            return file.read(limit)

    def sync(self) -> None:
        """Make renames and new names in this directory durable, so that they survive a power cut."""
        _sync_directory(self.fd)


def _sync_directory(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network filesystems cannot sync a directory; EIO must be raised
            raise


def write(
    folder: Folder, name: str, data: bytes, *, staging: Folder | None = None, sync: bool = True, replace: bool = True
) -> None:
    """Write a file in one step: a reader sees the old content or the new, never a part.

    Args:
        folder: where the file is.
        name: its name there.
        data: its whole content.
        staging: where the temporary file is made (same filesystem), so that a crash leaves no temporary file among a user's.
        sync: wait until content and name are on the disk; without it a power cut may bring the old content back.
        replace: whether a file of that name may be replaced.

    Raises:
        FileExistsError: the name is taken and `replace` is off.
        OSError: the disk is full, or another error; `name` is as it was.
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


def extend(folder: Folder, name: str, content: bytes, *, staging: Folder | None = None, sync: bool = True) -> None:
    """Append to a file until it has this content; after an interruption it has a beginning of it, which the next call extends.

    Args:
        folder: where the file is.
        name: its name there; a new file is written in one step, and durably.
        content: all of it, not only what is new.
        staging: as for `write`.
        sync: wait until what is added is on the disk.

    Raises:
        FileExistsError: the file there is not the beginning of `content`, so it belongs to somebody else and is not touched.
        OSError: the disk is full, or another error.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=folder.fd)
    except FileNotFoundError:
        write(folder, name, content, staging=staging, replace=False)
        return
    with os.fdopen(fd, "rb") as file:
        standing = file.read(len(content) + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        if not standing or not content.startswith(standing):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        view = memoryview(content)[len(standing) :]
        while view:
            view = view[os.write(fd, view) :]
        if sync:
            os.fdatasync(fd)


def share(fd: int, folder: Folder) -> None:
    """Give a file that was made elsewhere the group of a setgid directory, so that the people there may read it."""
    directory = os.fstat(folder.fd)
    if directory.st_mode & stat.S_ISGID and os.fstat(fd).st_gid != directory.st_gid:
        with contextlib.suppress(PermissionError):
            os.fchown(fd, -1, directory.st_gid)


def move(source: Folder, name: str, target: Folder, new_name: str) -> None:
    """Rename a file without ever overwriting another, and make both directories durable.

    Raises:
        FileExistsError: `new_name` is taken; nothing was moved.
        OSError: EXDEV when the two are on different mounts, and any other error of rename(2).
    """
    _rename_no_replace(source.fd, name, target.fd, new_name)
    target.sync()
    source.sync()


def link(source: Folder, name: str, target: Folder, new_name: str) -> None:
    """Give a file a second name, which costs no space, without ever overwriting another file; the new name is durable.

    Raises:
        FileExistsError: `new_name` is taken.
        OSError: EPERM where fs.protected_hardlinks forbids links to other people's files, EXDEV, EMLINK, ...
    """
    os.link(name, new_name, src_dir_fd=source.fd, dst_dir_fd=target.fd, follow_symlinks=False)
    target.sync()


def _rename_no_replace(source: int, name: str, target: int, new_name: str) -> None:
    result = _libc.renameat2(source, os.fsencode(name), target, os.fsencode(new_name), RENAME_NOREPLACE)
    if result == 0:
        return
    code = ctypes.get_errno()
    # the kernel reports a taken name before the filesystem reports that it does not know the flag
    if code not in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP} and (code != errno.EEXIST or _has_noreplace(target)):
        raise OSError(code, os.strerror(code), name, None, new_name)
    try:  # NFS and some FUSE filesystems lack the flag; link(2) does not overwrite either
        os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except FileExistsError:
        if _is_reserved(target, new_name):  # an earlier try was interrupted before its rename
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
            return
        if not (_is_same(source, name, target, new_name) or _is_equal(source, name, target, new_name)):
            raise
        os.unlink(name, dir_fd=source)  # an earlier try was interrupted between the link and this
    except PermissionError:
        # fs.protected_hardlinks forbids links to other people's files: reserve the name, then rename over the reservation
        _reserve(target, new_name)
        try:
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        except BaseException:
            os.unlink(new_name, dir_fd=target)
            raise
    else:
        failpoint("move.after_link")
        os.unlink(name, dir_fd=source)


def _reserve(folder: int, name: str) -> None:
    if _is_reserved(folder, name):
        return
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, RESERVED_MODE, dir_fd=folder))


def _is_reserved(folder: int, name: str) -> bool:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    is_ours = status.st_uid == os.geteuid() and status.st_mode == stat.S_IFREG | RESERVED_MODE
    return is_ours and not status.st_size


def is_reserved(folder: Folder, name: str) -> bool:
    """Whether a name is only reserved by an interrupted `move`: with an empty file of ours, in a mode that nobody else uses.

    Raises:
        OSError: it cannot be read.
    """
    return _is_reserved(folder.fd, name)


def _is_same(folder: int, name: str, other: int, other_name: str) -> bool:
    ours = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return os.path.samestat(ours, os.stat(other_name, dir_fd=other, follow_symlinks=False))


def is_half_moved(source: Folder, name: str, target: Folder, new_name: str) -> bool:
    """Whether both names exist because a `move` by link and unlink was interrupted between the two.

    Inode numbers show it, but not on sshfs, which makes them up. There, as wherever moves are links, two files with the
    same size, mtime and content count as one: a sender of both loses nothing when one of them is removed.

    Raises:
        FileNotFoundError: one of the names does not exist.
    """
    if _is_same(source.fd, name, target.fd, new_name):
        return True
    return _is_equal(source.fd, name, target.fd, new_name) and not _has_noreplace(target.fd)


def _is_equal(folder: int, name: str, other: int, other_name: str) -> bool:
    one = os.stat(name, dir_fd=folder, follow_symlinks=False)
    two = os.stat(other_name, dir_fd=other, follow_symlinks=False)
    if not stat.S_ISREG(one.st_mode) or (one.st_mode, one.st_size, one.st_mtime_ns) != (
        two.st_mode,
        two.st_size,
        two.st_mtime_ns,
    ):
        return False
    with _opened(folder, name) as ours, _opened(other, other_name) as theirs:
        while block := ours.read(_BLOCK_BYTES):
            if block != theirs.read(_BLOCK_BYTES):
                return False
    return True


def _opened(folder: int, name: str) -> BinaryIO:
    return os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder), "rb")


def _has_noreplace(folder: int) -> bool:
    """Whether this filesystem renames without overwriting in one step; tried once for each device."""
    device = os.fstat(folder).st_dev
    if device not in _noreplace:
        old, new = (f".{secrets.token_hex(8)}.tmp" for _ in range(2))
        os.close(os.open(old, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder))
        renamed = _libc.renameat2(folder, old.encode(), folder, new.encode(), RENAME_NOREPLACE) == 0
        code = ctypes.get_errno()
        os.unlink(new if renamed else old, dir_fd=folder)
        if not renamed and code not in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
            raise OSError(code, os.strerror(code))
        _noreplace[device] = renamed
    return _noreplace[device]


def remove_tree(folder: Folder, name: str) -> None:
    """Remove a directory and all below it without following symlinks; a missing one is fine."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(name, dir_fd=folder.fd)
    folder.sync()


def make_directory(path: Path) -> None:
    """Create a directory and its parents, each name durable; an existing one is fine."""
    if path.is_dir():
        return
    make_directory(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    with Folder(path.parent) as parent:
        parent.sync()


def remedy(error: OSError) -> str:
    """Say what the operator can do about an error of the disk."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return f"{'free disk space' if full else 'find the cause in the journal of the kernel'}; whisperd then continues"


def is_transient(error: OSError) -> bool:
    """Whether waiting can help: no room, quota, an I/O error, a stale handle, a read-only remount."""
    return error.errno in TRANSIENT
