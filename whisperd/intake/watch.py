"""inotify: hints that something may have changed, and the admission that hints were lost.

There is no thread: the kernel's queue is the queue, and the supervisor waits for its descriptor beside the workers'.
Folders are added by the scan as it enters them, before it reads them, so that nothing falls between the two.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inotify_simple import INotify, flags

from whisperd.spool.durable import Folder, write

if TYPE_CHECKING:
    from pathlib import Path

COOKIE = ".whisperd-cookie"
COOKIE_SECONDS = 5.0  # its event comes at once; a machine under load may need a moment to read it

# without OPEN and CLOSE_NOWRITE, which our own reads cause, and without MODIFY, one for each write(2)
_WANTED = (
    flags.CREATE
    | flags.CLOSE_WRITE
    | flags.ATTRIB
    | flags.MOVED_TO
    | flags.MOVED_FROM
    | flags.DELETE
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ONLYDIR
    | flags.EXCL_UNLINK
)


@dataclass(slots=True)
class Hints:
    """What the kernel told since the last call; names are relative to the inbox."""

    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    lost: bool = False  # the queue was full: nobody knows what was not told
    broken: bool = False  # the inbox itself was moved, deleted or unmounted
    folder_gone: bool = False


class Watch:
    """One inotify instance over the inbox.

    Raises:
        OSError: EMFILE or ENFILE, no more instances (fs.inotify.max_user_instances), or the inbox is not there.
    """

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        status = os.stat(inbox)
        self._identity = status.st_dev, status.st_ino
        self._inotify = INotify(nonblocking=True)
        self._paths: dict[int, tuple[str, ...]] = {}
        self._cookie_at: float | None = None
        self.is_full = False

    def fileno(self) -> int:
        """Readable when there is something to `drain`."""
        return int(self._inotify.fileno())

    def close(self) -> None:
        """Watch no more."""
        self._inotify.close()
        self._take_cookie_back()

    def add(self, parts: tuple[str, ...], folder: Folder) -> bool:
        """Watch one open folder from now on; True if it was not watched before.

        Past the limit of watches `is_full` becomes true, and what happens in the folder is left to the scan.
        """
        try:
            number = self._inotify.add_watch(f"/proc/self/fd/{folder.fd}", _WANTED)
        except OSError as error:
            self.is_full |= error.errno in {errno.ENOSPC, errno.ENOMEM}
            return True
        is_new = number not in self._paths
        self._paths[number] = parts
        return is_new

    def drain(self) -> Hints:
        """What was told since the last call."""
        hints = Hints()
        gone: set[tuple[str, ...]] = set()
        for event in self._inotify.read(timeout=0):
            if event.mask & flags.Q_OVERFLOW:
                hints.lost = True
                continue
            parts = self._paths.get(event.wd)
            if parts is None:
                continue
            if event.mask & flags.IGNORED:
                del self._paths[event.wd]
            if event.mask & (flags.IGNORED | flags.UNMOUNT | flags.MOVE_SELF | flags.DELETE_SELF):
                hints.broken |= not parts
            elif event.name == COOKIE and not parts:
                if self._cookie_at is not None:
                    self._take_cookie_back()
            elif event.mask & flags.ISDIR:
                if event.mask & (flags.CREATE | flags.MOVED_TO):
                    hints.folders.add("/".join((*parts, event.name)))
                elif event.mask & (flags.DELETE | flags.MOVED_FROM):
                    gone.add((*parts, event.name))
            elif event.name:
                hints.files.add("/".join((*parts, event.name)))
        if gone:
            hints.folder_gone = True
            self._remove(gone)
        return hints

    def is_of(self, inbox: Path) -> bool:
        """Whether the path still leads to the directory that is watched: it may have been replaced, or mounted over."""
        try:
            status = os.stat(inbox)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def plant_cookie(self, now: float) -> None:
        """Make a file whose event must come back; where it cannot be made, on a full disk, nothing is concluded."""
        if self._cookie_at is None:
            with contextlib.suppress(OSError), Folder(self._inbox) as folder:
                self._cookie_at = now  # before the event can come
                write(folder, COOKIE, b"", sync=False)
                return
            self._cookie_at = None

    def is_proven(self, now: float) -> bool:
        """Whether no event is overdue."""
        return self._cookie_at is None or now - self._cookie_at < COOKIE_SECONDS

    def _take_cookie_back(self) -> None:
        if self._cookie_at is not None:
            self._cookie_at = None
            with contextlib.suppress(OSError), Folder(self._inbox) as folder:
                os.unlink(COOKIE, dir_fd=folder.fd)

    def _remove(self, gone: set[tuple[str, ...]]) -> None:
        """Forget folders that went elsewhere with all in them; their events would come under a wrong name."""
        for number, parts in tuple(self._paths.items()):
            if any(parts[:depth] in gone for depth in range(1, len(parts) + 1)):
                del self._paths[number]
                with contextlib.suppress(OSError):
                    self._inotify.rm_watch(number)
