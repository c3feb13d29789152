"""Keeps outbox, done or failed below a size: removes the oldest files first, and none of a job that has not ended."""

from __future__ import annotations

import contextlib
import heapq
import os
import stat
from typing import TYPE_CHECKING

from whisperd.core.job import UNDER_WAY
from whisperd.spool import names, status_file
from whisperd.spool.durable import Folder
from whisperd.spool.layout import files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.spool.layout import Layout

FRESH_SECONDS = 3600.0  # younger files are kept: their job may not have ended yet, or a person may be looking at them
CANDIDATES_MAX = 10_000  # the most files that one run removes

Candidate = tuple[int, int, tuple[str, ...], str]  # minus its age, size, folders, name


def prune(layout: Layout, top: str, limit_bytes: int, *, now: float) -> Iterator[int]:
    """Remove the oldest files of a folder until the rest has at most `limit_bytes`, step by step.

    The ctime is the age of a file: a rename into the folder sets it, while an upload may bring an old mtime.

    Args:
        layout: the spool.
        top: outbox, done or failed.
        limit_bytes: how much is kept.
        now: seconds since 1970.

    Yields:
        How many bytes a step has freed, mostly 0.
    """
    total = 0
    oldest: list[Candidate] = []
    for found in _files(layout, top):
        if found is None:
            yield 0
            continue
        folders, file, status = found
        total += status.st_size
        if now - status.st_ctime >= FRESH_SECONDS:
            candidate = (-status.st_ctime_ns, status.st_size, folders, file)
            if len(oldest) < CANDIDATES_MAX:
                heapq.heappush(oldest, candidate)
            else:
                heapq.heappushpop(oldest, candidate)
        yield 0
    for _, size, folders, file in sorted(oldest, reverse=True):
        if total <= limit_bytes:
            return
        removed = False
        with contextlib.suppress(OSError):  # somebody has removed it, or put something else in its place
            removed = _remove(layout, top, folders, file)
        total -= size if removed else 0
        yield size if removed else 0


def _files(layout: Layout, top: str) -> Iterator[tuple[tuple[str, ...], str, os.stat_result] | None]:
    """Find every regular file below a folder; None for a step without one."""
    for found in files(layout.root / top):
        yield None
        if found is None:
            continue
        folders, file = found
        with contextlib.suppress(OSError), Folder(layout.root / top, folders) as folder:
            status = os.stat(file, dir_fd=folder.fd, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                yield folders, file, status


def _remove(layout: Layout, top: str, folders: tuple[str, ...], file: str) -> bool:
    """Remove a file and the folders that are empty then; returns whether it was removed."""
    with Folder(layout.root / top, folders) as folder:
        if file.endswith(names.STATUS_SUFFIX):
            document = status_file.decode(folder.read(file))
            if document is not None and document["status"] in UNDER_WAY:
                return False
        os.unlink(file, dir_fd=folder.fd)
    with contextlib.suppress(OSError):
        for depth in range(len(folders), 0, -1):
            with Folder(layout.root / top, folders[: depth - 1]) as parent:
                os.rmdir(folders[depth - 1], dir_fd=parent.fd)
    return True
