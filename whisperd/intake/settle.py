"""Tracks how long each file in the inbox has not changed, with one small state machine per file; callers give the time.

A file is due for a look when no event has named it and its signature has stayed the same for the quiet time. All times are
this machine's monotonic clock: mtimes prove nothing, because cp -p, rsync -t and Explorer copy them from the source. A caller
that finds the file incomplete postpones it, with the reason.
"""

from __future__ import annotations

import collections
import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd.core.fair import top_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.core.job import Signature

NEVER = float("inf")
TRACKED_MAX = 100_000  # more files than this wait untracked; a folder with fewer than FOLDER_SHARE is always tracked
FOLDER_SHARE = 100


@dataclass(slots=True)
class Settling:
    """The state of one file; all times are on the monotonic clock."""

    signature: Signature
    first_seen: float
    quiet_since: float
    check_at: float = NEVER  # when to look at it
    queued_at: float = NEVER  # the time of its only valid entry in the heap
    reason: str = ""  # why the last look did not find it complete
    held_back: bool = False  # by something other than time
    generation: int = 0  # the last scan that found it
    stall_told: bool = False


class Settle:
    """The table of files that were seen and not taken yet."""

    def __init__(self, quiet_seconds: float) -> None:
        self.quiet_seconds = quiet_seconds
        self._files: dict[str, Settling] = {}
        self._per_folder: collections.Counter[str] = collections.Counter()
        self._due: list[tuple[float, int, str]] = []  # with ctime, so that files found by one scan keep their order

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def items(self) -> Iterator[tuple[str, Settling]]:
        """Every file with its state."""
        return iter(tuple(self._files.items()))

    def get(self, name: str) -> Settling | None:
        """The state of one file; None if it is not tracked."""
        return self._files.get(name)

    def has_room(self, name: str) -> bool:
        """Whether a file is tracked, or may be."""
        is_free = len(self._files) < TRACKED_MAX or self._per_folder[top_folder(name)] < FOLDER_SHARE
        return is_free or name in self._files

    def observe(self, name: str, signature: Signature, now: float) -> Settling:
        """Record what the file is now: one that is new or has changed starts its quiet time."""
        known = self._files.get(name)
        if known is None:
            known = self._files[name] = Settling(signature, now, now)
            self._per_folder[top_folder(name)] += 1
            self._schedule(name, known, now + self.quiet_seconds)
        elif known.signature != signature:
            known.signature = signature
            self._changed(name, known, now)
        return known

    def touch(self, name: str, now: float) -> None:
        """Start the quiet time of a file again, because an event named it."""
        if known := self._files.get(name):
            self._changed(name, known, now)

    def postpone(self, name: str, until: float, reason: str) -> None:
        """Make an incomplete file due at a later time, or the quiet time after its next change."""
        if known := self._files.get(name):
            known.reason = reason
            self._schedule(name, known, until)

    def reconsider(self, name: str) -> None:
        """Make a file due by the quiet time that holds now; how long it has been quiet stays known."""
        if known := self._files.get(name):
            known.held_back = False
            self._schedule(name, known, known.quiet_since + self.quiet_seconds)

    def forget(self, name: str) -> None:
        """Stop tracking a file that is gone or taken."""
        if self._files.pop(name, None) is not None:
            group = top_folder(name)
            self._per_folder[group] -= 1
            if not self._per_folder[group]:
                del self._per_folder[group]

    def due(self, now: float, limit: int) -> Iterator[str]:
        """Yield the files that have been quiet for long enough to be looked at, oldest first; `limit` bounds the work of a call."""
        while limit and self._due and self._due[0][0] <= now:
            at, _, name = heapq.heappop(self._due)
            limit -= 1
            known = self._files.get(name)
            if known is None or known.queued_at != at:
                continue  # taken meanwhile, or superseded by another entry
            known.queued_at = NEVER
            if known.check_at > now:
                self._schedule(name, known, known.check_at)
                continue
            known.check_at = NEVER
            yield name

    def next_due(self) -> float | None:
        """When `due` may next yield a file; None while nothing is tracked."""
        return self._due[0][0] if self._due else None

    def _changed(self, name: str, known: Settling, now: float) -> None:
        known.quiet_since = now
        known.stall_told = False
        known.reason = ""
        known.held_back = False
        self._schedule(name, known, now + self.quiet_seconds)

    def _schedule(self, name: str, known: Settling, at: float) -> None:
        known.check_at = at
        if at < known.queued_at:  # an entry that turns out too early is put back by `due`
            known.queued_at = at
            heapq.heappush(self._due, (at, known.signature.ctime_ns, name))
