"""Watches the inbox with inotify: reports what may have changed, and whether events were lost.

watchdog's binding to inotify(7) is used, its observer threads are not: those end unseen, keep a lost watch and a full
queue to themselves, skip sub-folders beyond the limit of watches without a word, and hold events back for half a second
after each of our own renames (https://github.com/gorakhargosh/watchdog/issues/654, 663, 738). Here the kernel's queue is
the queue, and the supervisor waits for its descriptor beside the workers'. Folders are added by the scan as it enters
them, before it reads them, so that nothing falls between the two.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import os
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from whisperd.core.slices import Slice
from whisperd.spool.durable import Folder, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COOKIE = ".whisperd-cookie"
COOKIE_SECONDS = 5.0  # its event comes at once; a machine under load may need a moment to read it


class InotifyConstants:
    """Bits of a mask, as inotify(7) has them."""

    IN_ATTRIB = 0x4
    IN_CLOSE_WRITE = 0x8
    IN_MOVED_FROM = 0x40
    IN_MOVED_TO = 0x80
    IN_CREATE = 0x100
    IN_DELETE = 0x200
    IN_DELETE_SELF = 0x400
    IN_MOVE_SELF = 0x800
    IN_UNMOUNT = 0x2000
    IN_Q_OVERFLOW = 0x4000
    IN_IGNORED = 0x8000
    IN_ONLYDIR = 0x1000000
    IN_EXCL_UNLINK = 0x4000000
    IN_ISDIR = 0x40000000


# without OPEN and CLOSE_NOWRITE, which our own reads cause, and without MODIFY, one for each write(2)
_WANTED = (
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_ATTRIB
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_MOVED_FROM
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
    | InotifyConstants.IN_EXCL_UNLINK
)
_ENDED = (
    InotifyConstants.IN_IGNORED
    | InotifyConstants.IN_UNMOUNT
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_DELETE_SELF
)
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows, zeros included: inotify(7)
_BUFFER_BYTES = 1 << 16
REMEDY = "run `pip install 'watchdog>=7.1,<8'` and restart whisperd"


class BindingError(OSError):
    """Raised if watchdog's private binding to inotify is missing or has changed."""

    def __init__(self, cause: Exception) -> None:
        what = f"watchdog's binding to inotify has changed or is missing ({cause}); {REMEDY}"
        super().__init__(errno.ENOSYS, what)


@dataclass(slots=True)
class Hints:
    """The events since the last call; names are relative to the inbox."""

    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    lost: bool = False  # the queue was full: nobody knows what was not told
    broken: bool = False  # the inbox itself was moved, deleted or unmounted
    folder_gone: bool = False


class Watch:
    """An inotify instance that watches the inbox and its folders.

    Raises:
        BindingError: watchdog is not a version that this module knows.
        OSError: EMFILE or ENFILE, no more instances (fs.inotify.max_user_instances), or the inbox is not there.
    """

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        status = os.stat(inbox)
        self._identity = status.st_dev, status.st_ino
        self._binding = _binding()
        self._fd = _opened(self._binding, inbox)
        os.set_inheritable(self._fd, False)  # an ffmpeg that held it would keep the watches
        os.set_blocking(self._fd, False)
        self._paths: dict[int, tuple[str, ...]] = {}
        self._cookie_at: float | None = None
        self.is_full = False

    def fileno(self) -> int:
        """Return the descriptor, which is readable when there is something to `drain`."""
        return self._fd

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)
        self._take_cookie_back()

    def add(self, parts: tuple[str, ...], folder: Folder) -> bool:
        """Watch one open folder from now on; True if it was not watched before.

        Past the limit of watches `is_full` becomes true, and what happens in the folder is left to the scan.
        """
        try:
            number = _checked(self._binding.inotify_add_watch(self._fd, b"/proc/self/fd/%d" % folder.fd, _WANTED))
        except OSError as error:
            self.is_full |= error.errno in {errno.ENOSPC, errno.ENOMEM}
            return True
        is_new = number not in self._paths
        self._paths[number] = parts
        return is_new

    def drain(self) -> Hints:
        """Return the events since the last call; if there are very many, only some, and `fileno` stays readable."""
        hints = Hints()
        gone: set[tuple[str, ...]] = set()
        for number, mask, name in self._read():
            if mask & InotifyConstants.IN_Q_OVERFLOW:
                hints.lost = True
                continue
            parts = self._paths.get(number)
            if parts is None:
                continue
            if mask & InotifyConstants.IN_IGNORED:
                del self._paths[number]
            if mask & _ENDED:
                hints.broken |= not parts
            elif name == COOKIE and not parts:
                if self._cookie_at is not None:
                    self._take_cookie_back()
            elif mask & InotifyConstants.IN_ISDIR:
                if mask & (InotifyConstants.IN_CREATE | InotifyConstants.IN_MOVED_TO):
                    hints.folders.add("/".join((*parts, name)))
                elif mask & (InotifyConstants.IN_DELETE | InotifyConstants.IN_MOVED_FROM):
                    gone.add((*parts, name))
            elif name:
                hints.files.add("/".join((*parts, name)))
        if gone:
            hints.folder_gone = True
            self._remove(gone)
        return hints

    def _read(self) -> Iterator[tuple[int, int, str]]:
        """Read watch, mask and name of each event; what does not fit into a slice of time stays in the kernel's queue."""
        share = Slice()
        while not share.is_used_up():
            try:
                data = os.read(self._fd, _BUFFER_BYTES)
            except BlockingIOError:
                return
            at = 0
            while at < len(data):
                number, mask, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size + length
                yield number, mask, os.fsdecode(data[at - length : at].rstrip(b"\0"))

    def is_of(self, inbox: Path) -> bool:
        """Whether the path still leads to the watched directory, which may have been replaced or mounted over."""
        try:
            status = os.stat(inbox)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def plant_cookie(self, now: float) -> None:
        """Create a file whose event must arrive, to test the watch; on a full disk there is no test."""
        if self._cookie_at is None:
            with contextlib.suppress(OSError), Folder(self._inbox) as folder:
                self._cookie_at = now  # before the event can come
                write(folder, COOKIE, b"", sync=False)
                return
            self._cookie_at = None

    def is_proven(self, now: float) -> bool:
        """Whether the test events have arrived in time."""
        return self._cookie_at is None or now - self._cookie_at < COOKIE_SECONDS

    def _take_cookie_back(self) -> None:
        if self._cookie_at is not None:
            self._cookie_at = None
            with contextlib.suppress(OSError), Folder(self._inbox) as folder:
                os.unlink(COOKIE, dir_fd=folder.fd)

    def _remove(self, gone: set[tuple[str, ...]]) -> None:
        """Stop watching folders that were moved away, whose events would have wrong names."""
        tops = {parts[0] for parts in gone}  # of a hundred thousand folders few are below these
        for number in [number for number, parts in self._paths.items() if parts and parts[0] in tops]:
            parts = self._paths[number]
            if any(parts[:depth] in gone for depth in range(1, len(parts) + 1)):
                del self._paths[number]
                # the kernel may have done so before: then there is nothing to do
                self._binding.inotify_rm_watch(self._fd, number)


def _binding() -> Any:
    """Import the module of watchdog that calls libc, which is private and may change in any release."""
    try:
        return importlib.import_module("watchdog.observers.inotify_c")
    except (ImportError, AttributeError, TypeError) as error:
        raise BindingError(error) from error


def _opened(binding: Any, inbox: Path) -> int:
    """Open an inotify instance, and try each call that will be needed."""
    fd = -1
    try:
        fd = _checked(binding.inotify_init())
        number = binding.inotify_add_watch(fd, os.fsencode(inbox), _WANTED)
        if number >= 0:  # else the limit of watches is reached, which `add` sees to
            binding.inotify_rm_watch(fd, number)
            os.read(fd, _BUFFER_BYTES)  # that the watch has ended
    except (AttributeError, TypeError, ctypes.ArgumentError) as error:
        if isinstance(fd, int) and fd >= 0:
            os.close(fd)
        raise BindingError(error) from error
    return fd


def _checked(result: int) -> int:
    """Return the result of a call of libc; raise if it is -1."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
