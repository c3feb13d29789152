"""When has an upload stopped changing? One small state machine per file; time is given, never asked for.

A file is due for a look once no event named it and its signature stayed the same for the quiet time, all measured on this
machine's monotonic clock: mtimes prove nothing, since cp -p, rsync -t and Explorer bring old ones along. Who looked and
found that it is not complete postpones it, with the reason.
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
TRACKED_MAX = 100_000  # files beyond that wait unseen for room; a folder that has fewer than its share is always seen
FOLDER_SHARE = 100


@dataclass(slots=True)
class Settling:
    """What is known of one file; all times on the monotonic clock."""

    signature: Signature
    first_seen: float
    quiet_since: float
    check_at: float = NEVER  # when it is due
    queued_at: float = NEVER  # the time of its one valid entry in the heap
    reason: str = ""  # why the last look did not find it complete
    held_back: bool = False  # by something other than time
    generation: int = 0  # the last scan that met it
    stall_told: bool = False


class Settle:
    """Every file that was seen and not yet taken."""

    def __init__(self, quiet_seconds: float) -> None:
        self.quiet_seconds = quiet_seconds
        self._files: dict[str, Settling] = {}
        self._per_folder: collections.Counter[str] = collections.Counter()
        self._due: list[tuple[float, int, str]] = []  # ctime second: what was found in one scan keeps its order

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def items(self) -> Iterator[tuple[str, Settling]]:
        """Every file under watch."""
        return iter(tuple(self._files.items()))

    def get(self, name: str) -> Settling | None:
        """What is known of one file."""
        return self._files.get(name)

    def has_room(self, name: str) -> bool:
        """Whether a file may be observed."""
        is_free = len(self._files) < TRACKED_MAX or self._per_folder[top_folder(name)] < FOLDER_SHARE
        return is_free or name in self._files

    def observe(self, name: str, signature: Signature, now: float) -> Settling:
        """A look at the file: a new file, or one that changed, starts its quiet time."""
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
        """An event named the file: its quiet time starts again."""
        if known := self._files.get(name):
            self._changed(name, known, now)

    def postpone(self, name: str, until: float, reason: str) -> None:
        """It is not complete yet: due again at that time, or the quiet time after its next change."""
        if known := self._files.get(name):
            known.reason = reason
            self._schedule(name, known, until)

    def reconsider(self, name: str) -> None:
        """Another quiet time holds: a file is looked at once it has been quiet for that long, its clocks go on."""
        if known := self._files.get(name):
            known.held_back = False
            self._schedule(name, known, known.quiet_since + self.quiet_seconds)

    def forget(self, name: str) -> None:
        """The file is gone or taken."""
        if self._files.pop(name, None) is not None:
            group = top_folder(name)
            self._per_folder[group] -= 1
            if not self._per_folder[group]:
                del self._per_folder[group]

    def due(self, now: float, limit: int) -> Iterator[str]:
        """Files that have been quiet for long enough to be looked at, oldest first; `limit` bounds the work of a call."""
        while limit and self._due and self._due[0][0] <= now:
            at, _, name = heapq.heappop(self._due)
            limit -= 1
            known = self._files.get(name)
            if known is None or known.queued_at != at:
                continue  # it was taken, or has another entry
            known.queued_at = NEVER
            if known.check_at > now:
                self._schedule(name, known, known.check_at)
                continue
            known.check_at = NEVER
            yield name

    def next_due(self) -> float | None:
        """When `due` may next have something to look at."""
        return self._due[0][0] if self._due else None

    def _changed(self, name: str, known: Settling, now: float) -> None:
        known.quiet_since = now
        known.stall_told = False
        known.reason = ""
        known.held_back = False
        self._schedule(name, known, now + self.quiet_seconds)

    def _schedule(self, name: str, known: Settling, at: float) -> None:
        known.check_at = at
        if at < known.queued_at:  # an entry that comes too early is put back when it is met
            known.queued_at = at
            heapq.heappush(self._due, (at, known.signature.ctime_ns, name))
