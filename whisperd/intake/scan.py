"""Scans the inbox in slices of time, without following symlinks; an error at one file or folder does not stop it."""

from __future__ import annotations

import collections
import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd.core.job import MEDIA_EXTENSIONS, Signature
from whisperd.core.slices import Slice
from whisperd.spool import names
from whisperd.spool.durable import Folder
from whisperd.spool.layout import DEPTH_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from whisperd.intake.ignore import Ignore

SKIPPED_MAX = 100  # entries that are no uploads between two pauses
ARRIVED_SECONDS = 0.01  # of one turn
SCANNED_SECONDS = 0.015
FAILED_NAMED = 3  # entries of one folder that are named when each of them fails
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


def is_gone(error: OSError) -> bool:
    """Whether an error says that the file is not there, as opposed to a disk or a mount that fails."""
    return error.errno in _GONE


@dataclass(slots=True)
class Found:
    """One entry of the inbox: an upload with its signature, or something that cannot be claimed, with the reason.

    Attributes:
        name: path relative to the inbox.
        signature: of an upload.
        refusal: why it is not taken.
        is_unread: nothing can be known of it for now, nor of the files in it if it is a folder.
    """

    name: str
    signature: Signature | None
    refusal: str | None = None
    is_unread: bool = False


def scan(
    inbox: Path,
    ignore: Ignore,
    below: tuple[str, ...] = (),
    enter: Callable[[tuple[str, ...], Folder], object] = lambda _below, _folder: None,
) -> Iterator[Found | None]:
    """Yield every upload in the inbox, or in one folder of it, in no order; None now and then, so that the caller can pause.

    So who takes it in steps may pause between folders that hold nothing, and among entries that are no uploads, however
    many there are.

    Args:
        inbox: the directory.
        ignore: names that are no uploads.
        below: where in the inbox to begin.
        enter: called with each folder before it is read, so that one who watches it from then on misses nothing.

    Raises:
        OSError: the inbox itself cannot be read.
    """
    open_ends = [below]
    while open_ends:
        parts = open_ends.pop()
        if len(parts) > DEPTH_MAX:
            yield Found("/".join(parts), None, f"folders are nested more than {DEPTH_MAX} deep here")
            continue
        try:
            folder = Folder(inbox, parts)
        except OSError as error:
            if not parts:
                raise
            yield from _unread(parts, error)
            continue
        with folder:
            enter(parts, folder)
            yield None
            prefix = "".join(f"{part}/" for part in parts)
            try:
                with os.scandir(folder.fd) as entries:
                    failed = skipped = 0
                    for entry in entries:
                        name = entry.name
                        skipped += 1
                        if skipped % SKIPPED_MAX == 0:
                            yield None
                        if ignore(name):
                            continue
                        try:
                            status = None if entry.is_dir(follow_symlinks=False) else entry.stat(follow_symlinks=False)
                        except OSError as error:
                            failed += not is_gone(error)
                            if failed <= FAILED_NAMED:
                                yield from _unread(parts if _is_denied(error) and parts else (*parts, name), error)
                            continue
                        if status is not None:
                            yield found(prefix + name, status)
                            continue
                        open_ends.append((*parts, name))
                        if names.stem_and_extension(name)[1].lower() in MEDIA_EXTENSIONS:
                            yield Found(prefix + name, None, "this is a folder; the files in it are taken one by one")
            except OSError as error:
                if not parts:
                    raise
                yield from _unread(parts, error)


def _unread(parts: tuple[str, ...], error: OSError) -> Iterator[Found]:
    """Yield an entry for a folder or file that cannot be read, unless it was removed meanwhile."""
    if is_gone(error):
        return
    refusal = f"it cannot be read: {error.strerror}; look into its disk or mount, it is tried at each scan"
    if _is_denied(error):
        refusal = "permission denied: whisperd cannot look into this folder; it needs g+rwx"
    yield Found("/".join(parts), None, refusal, is_unread=True)


def _is_denied(error: OSError) -> bool:
    return error.errno in {errno.EACCES, errno.EPERM}


def look(inbox: Path, name: str, ignore: Ignore) -> Found | None:
    """Look at one entry of the inbox again; None if it is gone, ignored or a folder.

    Raises:
        OSError: it cannot be told, since a folder above it cannot be read.
    """
    folders, file = names.split(name)
    if any(ignore(part) for part in (*folders, file)):
        return None
    try:
        with Folder(inbox, folders) as folder:
            status = os.stat(file, dir_fd=folder.fd, follow_symlinks=False)
    except ValueError:
        return None
    except OSError as error:
        if is_gone(error):
            return None
        raise
    return None if stat.S_ISDIR(status.st_mode) else found(name, status)


def remove(inbox: Path, name: str) -> None:
    """Remove a marker or request that is no longer needed.

    Raises:
        OSError: it is gone already, or cannot be removed.
    """
    folders, file = names.split(name)
    with Folder(inbox, folders) as folder:
        os.unlink(file, dir_fd=folder.fd)


def found(name: str, status: os.stat_result) -> Found:
    """Make an entry from the result of stat(2) for anything but a folder."""
    kind = status.st_mode
    if stat.S_ISREG(kind):
        return Found(name, Signature.of(status))
    what = "a symlink" if stat.S_ISLNK(kind) else "a FIFO" if stat.S_ISFIFO(kind) else "not a regular file"
    return Found(name, None, f"this is {what}; only regular files are taken")


class Walker:
    """Scans the whole inbox now and then, and new folders first, since their uploads are new.

    Args:
        inbox: the directory.
        ignore: names that are no uploads.
        enter: called with each folder before it is read.

    Attributes:
        scan_number: of the scan under way, or of the last one.
        due_at: when the next scan is to begin.
        is_scanned: whether the whole inbox has been read once, with these names left out.
        scanned_at: when a scan last came to its end.
    """

    def __init__(self, inbox: Path, ignore: Ignore, enter: Callable[[tuple[str, ...], Folder], object]) -> None:
        self._inbox = inbox
        self.ignore = ignore
        self._enter = enter
        self.scan_number = 0
        self.due_at = 0.0
        self.is_scanned = False
        self.scanned_at: float | None = None
        self._folders: collections.deque[Iterator[Found | None]] = collections.deque()
        self._whole: Iterator[Found | None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a scan of the inbox or of a folder is not complete."""
        return bool(self._folders) or self._whole is not None

    @property
    def has_arrivals(self) -> bool:
        """Whether new folders are not scanned completely."""
        return bool(self._folders)

    @property
    def is_scanning(self) -> bool:
        """Whether a scan of the whole inbox is running."""
        return self._whole is not None

    def begin(self) -> None:
        """Start a scan of the whole inbox."""
        self.due_at = float("inf")
        self.scan_number += 1
        self._whole = scan(self._inbox, self.ignore, (), self._enter)

    def restart(self, ignore: Ignore) -> None:
        """Start the scan again, because other names are ignored now."""
        self.abandon()
        self.ignore = ignore
        self.is_scanned = False
        self.due_at = 0.0

    def abandon(self) -> None:
        """Stop all scans, because the inbox was replaced."""
        self._whole = None
        self._folders.clear()

    def add(self, name: str) -> None:
        """Add a folder to scan."""
        parts = tuple(name.split("/"))
        if not any(self.ignore(part) for part in parts):
            self._folders.append(scan(self._inbox, self.ignore, parts, self._enter))

    def arrived(self) -> Iterator[Found]:
        """Yield what is in the new folders, for one slice of time."""
        share = Slice(ARRIVED_SECONDS)
        while self._folders:
            for found in self._folders[0]:
                if found is not None:
                    yield found
                if share.is_used_up():
                    return
            self._folders.popleft()

    def scanned(self) -> Iterator[Found]:
        """Yield what the scan of the inbox meets next, for one slice of time; then `is_scanning` is false if it is complete.

        Raises:
            OSError: the inbox cannot be read; the scan is over.
        """
        share = Slice(SCANNED_SECONDS)
        try:
            for found in self._whole or ():
                if found is not None:
                    yield found
                if share.is_used_up():
                    return
        except OSError:
            self._whole = None
            raise
        self._whole = None
