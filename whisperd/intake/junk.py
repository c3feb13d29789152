"""Removes from the inbox what programs leave in every folder that they show, and no person makes: `.DS_Store`, `Thumbs.db`, ...

All of these names are ignored as uploads too (`ignore`). A name alone is not enough where a program may give it to a part of an
upload: rsync writes `_talk.mp3` under the name `._talk.mp3.Ab12Cd`.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from whisperd.spool.durable import Folder
from whisperd.spool.layout import DEPTH_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whisperd.intake.ignore import Ignore

AGE_SECONDS = 86_400.0  # programs that are still at work would only write it again
SKIPPED_MAX = 100  # entries that are looked at between two pauses
FILES = frozenset({".ds_store", "thumbs.db", "desktop.ini"})  # in lower case
FOLDERS = ("@eadir", ".trash")  # beginnings, in lower case: of Synology; of Mac and Linux (.Trashes, .Trash-1000)
APPLE_DOUBLE = ("._", b"\x00\x05\x16\x07")  # RFC 1740, appendix B: the magic number
OFFICE = ("~$", 1024)  # the name of who has a document open, in 162 or 165 bytes: larger ones are something else


def remove_junk(inbox: Path, ignore: Ignore, *, now: float) -> Iterator[str | None]:
    """Remove the junk that has not changed for a day, step by step; a folder only when it is empty.

    Nothing is found through a symlink. The ctime counts, which no uploader can set.

    Args:
        inbox: the directory.
        ignore: folders of these names are not looked into, unless they are junk themselves.
        now: seconds since 1970.

    Yields:
        The path in the inbox of what was removed, None for a step without.
    """
    unread: list[tuple[str, ...]] = [()]
    while unread:
        parts = unread.pop()
        yield None
        with contextlib.suppress(OSError), Folder(inbox, parts) as folder, os.scandir(folder.fd) as entries:
            for number, entry in enumerate(entries, 1):
                name = entry.name
                is_folder = entry.is_dir(follow_symlinks=False)
                if is_folder and len(parts) < DEPTH_MAX and (_is_folder_of_junk(name) or not ignore(name)):
                    unread.append((*parts, name))
                removed = False
                with contextlib.suppress(OSError):  # it is gone, not empty or not ours to remove
                    removed = _remove(folder, name, is_folder=is_folder, now=now)
                if removed:
                    yield "/".join((*parts, name))
                elif number % SKIPPED_MAX == 0:
                    yield None


def _is_folder_of_junk(name: str) -> bool:
    return name.lower() == FOLDERS[0] or name.lower().startswith(FOLDERS[1])


def _remove(folder: Folder, name: str, *, is_folder: bool, now: float) -> bool:
    """Remove one entry if it is junk; returns whether it was.

    Raises:
        OSError: it cannot be examined or removed, such as a folder that is not empty.
    """
    if is_folder and _is_folder_of_junk(name):
        if _is_old(os.stat(name, dir_fd=folder.fd, follow_symlinks=False), now):
            os.rmdir(name, dir_fd=folder.fd)
            return True
    elif not is_folder and (name.lower() in FILES or name.startswith((APPLE_DOUBLE[0], OFFICE[0]))):
        status = os.stat(name, dir_fd=folder.fd, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) and _is_old(status, now) and _is_what_it_is_called(folder, name, status):
            os.unlink(name, dir_fd=folder.fd)
            return True
    return False


def _is_old(status: os.stat_result, now: float) -> bool:
    return now - status.st_ctime >= AGE_SECONDS


def _is_what_it_is_called(folder: Folder, name: str, status: os.stat_result) -> bool:
    """Whether the content fits the name, where a recording or a part of it may have such a name."""
    if name.startswith(APPLE_DOUBLE[0]):
        return status.st_size == 0 or folder.read(name, len(APPLE_DOUBLE[1])) == APPLE_DOUBLE[1]
    return not name.startswith(OFFICE[0]) or status.st_size <= OFFICE[1]
