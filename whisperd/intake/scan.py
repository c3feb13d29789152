"""The truth about the inbox: a walk that follows no symlink and is stopped by nothing it meets."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd.job import Signature
from whisperd.spool import names
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whisperd.intake.ignore import Ignore

MEDIA_EXTENSIONS = frozenset(
    [
        ".mp3",
        ".wav",
        ".m4a",
        ".mp4",
        ".flac",
        ".ogg",
        ".opus",
        ".webm",
        ".mkv",
        ".mov",
        ".avi",
        ".aac",
        ".wma",
        ".aiff",
        ".amr",
        ".3gp",
    ]
)


@dataclass(frozen=True, slots=True)
class Found:
    """One entry of the inbox: an upload with its signature, or something that can't be taken and why."""

    name: str
    signature: Signature | None
    refusal: str | None = None


def scan(inbox: Path, ignore: Ignore, below: tuple[str, ...] = ()) -> Iterator[Found]:
    """Every upload in the inbox, or in one folder of it, at any depth.

    Raises:
        OSError: the inbox itself cannot be read.
    """
    try:
        folder = Folder(inbox, below)
    except OSError as error:
        if not below:
            raise
        if error.errno in {errno.EACCES, errno.EPERM}:
            yield Found(
                "/".join(below), None, "permission denied: whisperd cannot look into this folder; it needs g+rwx"
            )
        return
    with folder:
        for entry in sorted(os.listdir(folder.fd)):
            if ignore(entry):
                continue
            found = _look(folder, "/".join((*below, entry)), entry)
            if isinstance(found, Found):
                yield found
            elif found:
                if names.stem_and_extension(entry)[1].lower() in MEDIA_EXTENSIONS:
                    yield Found(
                        "/".join((*below, entry)), None, "this is a folder; the files in it are taken one by one"
                    )
                yield from scan(inbox, ignore, (*below, entry))


def look(inbox: Path, name: str, ignore: Ignore) -> Found | None:
    """One entry, looked at afresh; None if it is gone, ignored or a folder."""
    folders, file = names.split(name)
    if any(ignore(part) for part in (*folders, file)):
        return None
    try:
        with Folder(inbox, folders) as folder:
            found = _look(folder, name, file)
    except OSError:
        return None
    return found if isinstance(found, Found) else None


def _look(folder: Folder, name: str, entry: str) -> Found | bool:
    """An entry; True stands for a folder, False for nothing there."""
    try:
        status = os.stat(entry, dir_fd=folder.fd, follow_symlinks=False)
    except OSError:
        return False
    kind = status.st_mode
    if stat.S_ISDIR(kind):
        return True
    if stat.S_ISREG(kind):
        signature = Signature(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_blocks
        )
        if not _readable(folder, entry):
            return Found(name, signature, "permission denied: whisperd cannot read it; the file needs g+r")
        return Found(name, signature)
    what = "a symlink" if stat.S_ISLNK(kind) else "a FIFO" if stat.S_ISFIFO(kind) else "not a regular file"
    return Found(name, None, f"this is {what}; only regular files are taken")


def _readable(folder: Folder, entry: str) -> bool:
    return os.access(entry, os.R_OK, dir_fd=folder.fd, effective_ids=True)
