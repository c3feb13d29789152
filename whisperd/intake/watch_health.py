"""Checks whether the watch reports everything; if not, the inbox is polled, and one log line gives the reason.

Each way to go blind is looked for: a full event queue, the inbox moved, replaced, unmounted or mounted over, the limit of
watches, a watch from which nothing comes (a cookie file must come back as an event), a filesystem whose files change
elsewhere (by its type, or because scans find what no event told of).
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from whisperd.core import events
from whisperd.core.job import Signature
from whisperd.intake.watch import BindingError, Hints, Watch
from whisperd.intake.writers import remote_name

if TYPE_CHECKING:
    from pathlib import Path

    from whisperd.settings.sections import IntakeOptions
    from whisperd.spool.durable import Folder

CHECK_SECONDS = 1.0  # between looks at the inbox itself
HINT_SECONDS = 5.0  # an event that has not come after this long will not come
UNTOLD_MAX = 3  # so many files found by scans alone prove that events do not tell of all
LOST_LOG_SECONDS = 60.0  # in a storm the queue overflows again and again

_log = logging.getLogger(__name__)


class WatchHealth:
    """The watch over the inbox: replaced when it fails, and given up where it cannot work."""

    def __init__(self, path: Path, emitter: events.Emitter) -> None:
        self._path = path
        self._emit = emitter.emit
        self._watch: Watch | None = None
        self._check_at = 0.0
        self._trouble = ""
        self._blind = ""  # why events are not to be relied on
        self._full_told = False
        self._lost_told_at = float("-inf")
        self._misses = 0  # cookies in a row that did not come back
        self._untold: dict[str, float] = {}
        self._untold_count = 0
        self._new_folders: set[str] = set()
        self._compares = False  # whether this scan may be held against the watch
        self._slowed: tuple[IntakeOptions, IntakeOptions] | None = None

    def open(self) -> None:
        """Start to watch, or find out that this filesystem must be polled.

        Raises:
            OSError: the inbox cannot be read.
        """
        os.listdir(self._path)
        if name := remote_name(self._path):
            if name == "FUSE":
                Signature.ignore_inodes_of(os.stat(self._path).st_dev)
            self._go_polling(f"on {name} changes made elsewhere give no event")
        else:
            self._arm()

    def close(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    @property
    def is_polling(self) -> bool:
        """Whether the inbox is polled, so that scans must be frequent."""
        return bool(self._blind) or self._watch is None or self._watch.is_full

    def waitables(self) -> list[Any]:
        """Return the descriptors that become readable when something happens."""
        return [self._watch] if self._watch is not None else []

    def next_at(self, now: float) -> float:
        """Return the time when `drain` must be called, unless something becomes readable before."""
        return max(now, self._check_at)

    def slowed(self, options: IntakeOptions) -> IntakeOptions:
        """Return the options with a longer quiet time, of two polls, where files can change without an event."""
        if not self._blind:
            return options
        if self._slowed is None or self._slowed[0] is not options:
            quiet = max(options.settle_seconds, 2 * options.poll_seconds)
            changed = options.evolve(settle_seconds=quiet, settle_seconds_proven=quiet)
            self._slowed = options, changed
        return self._slowed[1]

    def enter(self, parts: tuple[str, ...], folder: Folder) -> None:
        """Watch a folder, before the scan reads it."""
        if self._watch is not None and self._watch.add(parts, folder):
            self._new_folders.add("/".join(parts))

    def scan_begins(self) -> None:
        """Start to compare the files that a scan finds with the events; `prove` ends it."""
        self._new_folders.clear()
        if self._watch is not None:
            self._watch.is_full = False  # each scan tries again to watch all
            self._compares = True

    def met(self, name: str, now: float) -> None:
        """Record that the scan met a new file, for which there should have been an event."""
        if not self._compares or self._watch is None or name.rpartition("/")[0] in self._new_folders:
            return
        if len(self._untold) < UNTOLD_MAX * 10:
            self._untold.setdefault(name, now)

    def prove(self, now: float) -> None:
        """Test the watch by the scan that has ended."""
        self._compares = False
        if self._watch is None:
            return
        self._watch.plant_cookie(now)
        if self._watch.is_full != self._full_told:
            self._full_told = self._watch.is_full
            if self._full_told:
                _log.warning(
                    "not all folders of the inbox can be watched: the limit fs.inotify.max_user_watches is reached; "
                    "the inbox is read more often until they can"
                )
            else:
                _log.info("all folders of the inbox are watched again")

    def drain(self, now: float) -> Hints:
        """Return the events since the last call; `broken` is set if everything must be scanned again."""
        hints = self._watch.drain() if self._watch is not None else Hints()
        if hints.lost:
            self._untold.clear()
            self._compares = False
            if now - self._lost_told_at >= LOST_LOG_SECONDS:
                self._lost_told_at = now
                _log.info("events were lost, more came than the queue holds: the inbox is scanned")
        if hints.broken or now >= self._check_at:
            self._check_at = now + CHECK_SECONDS
            hints.broken |= self._check(now, broken=hints.broken)
        if self._untold:
            self._count_untold(hints, now)
        return hints

    def report(self, trouble: str) -> None:
        """Log once that the inbox cannot be read, and once that it can be read again."""
        if trouble and trouble != self._trouble:
            _log.error("%s; whisperd continues when it is back", trouble)
        elif self._trouble and not trouble:
            _log.info("the inbox can be read again")
        self._trouble = trouble

    def _check(self, now: float, *, broken: bool) -> bool:
        if self._watch is None:
            return not self._blind and self._arm()
        if broken or not self._watch.is_of(self._path):
            self.close()
            if self._arm():
                self._emit(events.WatchRearmed("it was moved, replaced, or something was mounted there"))
            return True
        if not self._watch.is_proven(now):
            self._misses += 1
            self.close()
            if self._misses > 1:
                self._go_polling("its events do not arrive")
            elif self._arm():
                self._emit(events.WatchRearmed("no event came for a file made there"))
            return True
        return False

    def _arm(self) -> bool:
        try:
            self._watch = Watch(self._path)
        except FileNotFoundError:
            self.report(f"the inbox {self._path} is not there")
            return False
        except BindingError as error:
            self._go_polling(f"it cannot be watched: {error.strerror}")
            return False
        except OSError as error:
            self._go_polling(f"it cannot be watched: {error.strerror}, see fs.inotify.max_user_instances")
            return False
        self._untold.clear()
        self._compares = False
        return True

    def _go_polling(self, why: str) -> None:
        self.close()
        self._blind = why
        self._untold.clear()
        self._emit(events.PollingStarted(why))

    def _count_untold(self, hints: Hints, now: float) -> None:
        for name in self._untold.keys() & hints.files:
            del self._untold[name]
        for name in [name for name in self._untold if any(name.startswith(f"{folder}/") for folder in hints.folders)]:
            del self._untold[name]
        late = [name for name, since in self._untold.items() if now - since > HINT_SECONDS]
        for name in late:
            del self._untold[name]
        self._untold_count += len(late)
        if self._untold_count >= UNTOLD_MAX:
            self._go_polling("scans find files that no event told of; are they made on another machine?")
