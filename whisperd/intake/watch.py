"""inotify through watchdog: hints that something may have changed, and the admission that hints were lost.

The handler runs on watchdog's threads and does nothing but queue a name: an exception in it would end the dispatcher
while everything still looks alive.
"""

from __future__ import annotations

import collections
import logging
import os
from typing import TYPE_CHECKING

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from watchdog.observers.api import BaseObserver

HINTS_MAX = 10_000  # beyond that a scan is cheaper than the hints, and memory stays bounded

_log = logging.getLogger(__name__)


class Watch(FileSystemEventHandler):
    """Watches the inbox and collects hints.

    Args:
        inbox: the directory to watch, with all below it.
        wake: called from a foreign thread when there is something new to look at.
    """

    def __init__(self, inbox: Path, wake: Callable[[], None]) -> None:
        self._inbox = inbox
        self._wake = wake
        self._hints: collections.deque[str] = collections.deque(maxlen=HINTS_MAX)
        self._lost = False
        self._observer: BaseObserver | None = None
        self._identity: tuple[int, int] | None = None

    def start(self) -> None:
        """Begin to watch; whatever is there already is for the scan to find.

        Raises:
            OSError: the inbox cannot be watched (missing, unreadable, watch limit reached).
        """
        self._identity = self._look_at_root()
        observer = Observer()
        # without IN_OPEN and IN_CLOSE_NOWRITE: our own reads would fill the queue
        wanted: list[type[FileSystemEvent]] = [
            FileCreatedEvent,
            FileClosedEvent,
            FileMovedEvent,
            FileDeletedEvent,
            DirCreatedEvent,
            DirMovedEvent,
        ]
        observer.schedule(self, str(self._inbox), recursive=True, event_filter=wanted)
        logging.getLogger("watchdog.observers.inotify_c").addFilter(self._overheard)
        observer.start()
        self._observer = observer

    def stop(self) -> None:
        """Stop watching."""
        logging.getLogger("watchdog.observers.inotify_c").removeFilter(self._overheard)
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(timeout=5)
            self._observer = None

    def drain(self) -> tuple[set[str], bool]:
        """The names hinted at since the last call, relative to the inbox, and whether hints were lost."""
        lost, self._lost = self._lost, False
        hinted: set[str] = set()
        while self._hints:
            hinted.add(self._hints.popleft())
        return hinted, lost or len(hinted) >= HINTS_MAX

    def is_alive(self) -> bool:
        """Whether events still arrive: the threads run, and the inbox is the directory that is being watched."""
        observer = self._observer
        if observer is None or not observer.is_alive() or not all(emitter.is_alive() for emitter in observer.emitters):
            return False
        try:
            return self._look_at_root() == self._identity
        except OSError:
            return False

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Queue what changed; a file moved here, or linked, is created without ever being closed."""
        for path in (event.src_path, event.dest_path):
            if path:
                relative = os.path.relpath(os.fsdecode(path), self._inbox)
                if not relative.startswith(".."):
                    if len(self._hints) >= HINTS_MAX - 1:
                        self._lost = True
                    self._hints.append(relative)
        self._wake()

    def _overheard(self, record: logging.LogRecord) -> bool:
        """Watchdog tells of a queue overflow, and of events it threw away then, by a log line alone."""
        if "overflow" in record.getMessage():
            self._lost = True
            self._wake()
            return False
        return True

    def _look_at_root(self) -> tuple[int, int]:
        os.listdir(self._inbox)  # an unreadable inbox is watched without an error, and without an event
        status = self._inbox.stat()
        return status.st_dev, status.st_ino
