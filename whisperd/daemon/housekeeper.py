"""Keeps outbox, done and failed below the sizes of `retention`, and the inbox free of junk, once an hour and a few files at a time.

The oldest files are removed first, and none of a job that has not ended.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import stat
import time
from typing import TYPE_CHECKING

from whisperd.core import events
from whisperd.core.display import printable
from whisperd.core.job import UNDER_WAY
from whisperd.core.process import Trimmer
from whisperd.core.slices import advance
from whisperd.daemon.loop import Part
from whisperd.intake.ignore import Ignore
from whisperd.intake.junk import remove_junk
from whisperd.spool import names, status_file
from whisperd.spool.durable import Folder
from whisperd.spool.layout import files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.settings.config import Config
    from whisperd.spool.layout import Layout

EVERY_SECONDS = 3600.0
FIRST_SECONDS = 60.0  # after a start there is more urgent work
PAUSE_SECONDS = 0.03  # between two slices: this may take its time
FRESH_SECONDS = 3600.0  # younger files are kept: their job may not have ended yet, or a person may be looking at them
CANDIDATES_MAX = 10_000  # the most files that one run removes

Candidate = tuple[int, int, tuple[str, ...], str]  # minus its age, size, folders, name


class Housekeeper(Part):
    """The part of the loop that removes old files and junk, and returns free memory to the system."""

    def __init__(self, layout: Layout, config: Config, emitter: events.Emitter) -> None:
        self._layout = layout
        self._emit = emitter.emit
        self.configure(config)
        self._work: Iterator[None] | None = None
        self._next_at: float | None = None
        self._trimmer = Trimmer()

    def configure(self, config: Config) -> None:
        """Use these settings from the next round on."""
        self._retention = config.retention
        self._intake = config.intake

    def tick(self, now: float) -> float:
        """Continue the current round, or begin one if it is time; returns the time of the next call."""
        self._trimmer.tick()
        if self._next_at is None:
            self._next_at = now + FIRST_SECONDS
        if now < self._next_at:
            return self._next_at
        if self._work is None:
            self._work = self._round()
        if advance(self._work):
            self._next_at = now + PAUSE_SECONDS
        else:
            self._work, self._next_at = None, now + EVERY_SECONDS
        return self._next_at

    def _round(self) -> Iterator[None]:
        settings = self._retention
        if self._intake.remove_junk:
            yield from self._remove_junk()
        limits = (("done", settings.done_max), ("failed", settings.failed_max), ("outbox", settings.outbox_max))
        for room, limit in limits:
            if limit is None:
                continue
            count = freed = 0
            for size in prune(self._layout, room, limit, now=time.time()):
                count, freed = count + bool(size), freed + size
                yield
            if count:
                self._emit(events.FilesPruned(room, count, freed))

    def _remove_junk(self) -> Iterator[None]:
        count, example = 0, ""
        for removed in remove_junk(self._layout.inbox, Ignore(self._intake.ignored), now=time.time()):
            if removed is not None:
                count, example = count + 1, example or removed
            yield
        if count:
            self._emit(events.JunkRemoved(count, printable(example)))


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
