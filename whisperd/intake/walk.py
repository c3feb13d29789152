"""Walking the inbox in slices of time: the whole of it now and then, and folders as they arrive."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from whisperd.core.slices import Slice
from whisperd.intake.scan import Found, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from whisperd.intake.ignore import Ignore
    from whisperd.spool.durable import Folder

ARRIVED_SECONDS = 0.01  # of one turn
SCANNED_SECONDS = 0.015


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
        share = Slice(ARRIVED_SECONDS)
        while self._folders:
            for found in self._folders[0]:
                if found is not None:
                    yield found
                if share.is_used_up():
                    return
            self._folders.popleft()

    def scanned(self) -> Iterator[Found]:
        """What the scan meets next, as far as one slice of time goes; `is_scanning` is false once it is through.

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
