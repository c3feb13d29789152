"""Walking the inbox in slices of time: the whole of it now and then, and folders as they arrive."""

from __future__ import annotations

import collections
import itertools
import time
from typing import TYPE_CHECKING

from whisperd.intake.scan import Found, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from whisperd.intake.ignore import Ignore
    from whisperd.spool.durable import Folder

SLICE_SECONDS = 0.05  # then workers, signals and the watchdog get their turn
STEP = 200  # entries between two looks at the clock


class Walker:
    """Folders that arrived go first, since somebody waits for them.

    Args:
        inbox: the directory.
        ignore: names that are no uploads.
        enter: called with each folder before it is read.
    """

    def __init__(self, inbox: Path, ignore: Ignore, enter: Callable[[tuple[str, ...], Folder], object]) -> None:
        self._inbox = inbox
        self._ignore = ignore
        self._enter = enter
        self._folders: collections.deque[Iterator[Found | None]] = collections.deque()
        self._whole: Iterator[Found | None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether there is more to walk."""
        return bool(self._folders) or self._whole is not None

    @property
    def has_arrivals(self) -> bool:
        """Whether folders that arrived are not walked to their end yet."""
        return bool(self._folders)

    @property
    def is_scanning(self) -> bool:
        """Whether a scan of the whole inbox is under way."""
        return self._whole is not None

    def begin(self) -> None:
        """Scan the whole inbox, from the start."""
        self._whole = scan(self._inbox, self._ignore, (), self._enter)

    def abandon(self) -> None:
        """The inbox is not what it was: what was begun is of no use."""
        self._whole = None
        self._folders.clear()

    def add(self, name: str) -> None:
        """Walk one folder."""
        parts = tuple(name.split("/"))
        if not any(self._ignore(part) for part in parts):
            self._folders.append(scan(self._inbox, self._ignore, parts, self._enter))

    def arrived(self) -> Iterator[Found]:
        """What is in the folders that were added, as far as one slice of time goes."""
        end = time.monotonic() + SLICE_SECONDS
        while self._folders and time.monotonic() < end:
            some = list(itertools.islice(self._folders[0], STEP))
            yield from filter(None, some)
            if len(some) < STEP:
                self._folders.popleft()

    def scanned(self) -> Iterator[Found]:
        """What the scan meets next, as far as one slice of time goes; `is_scanning` is false once it is through.

        Raises:
            OSError: the inbox cannot be read; the scan is over.
        """
        end = time.monotonic() + SLICE_SECONDS
        while self._whole is not None and time.monotonic() < end:
            try:
                some = list(itertools.islice(self._whole, STEP))
            except OSError:
                self._whole = None
                raise
            yield from filter(None, some)
            if len(some) < STEP:
                self._whole = None
