"""When has an upload stopped changing? One small state machine per file; time is given, never asked for.

A file has settled once no event named it and its signature stayed the same for the quiet time, all measured on this
machine's monotonic clock: mtimes prove nothing, since cp -p, rsync -t and Explorer bring old ones along.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.job import Signature


@dataclass(slots=True)
class Settling:
    """What is known of one file."""

    signature: Signature
    first_seen: float
    quiet_since: float
    scheduled: bool = False


class Settle:
    """Every file that was seen and not yet taken."""

    def __init__(self, quiet_seconds: float, empty_seconds: float) -> None:
        self.quiet_seconds = quiet_seconds
        self.empty_seconds = empty_seconds
        self._files: dict[str, Settling] = {}
        self._due: list[tuple[float, str]] = []  # one entry per file that is not quiet yet; others are met and dropped

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def names(self) -> Iterator[str]:
        """Every file under watch."""
        return iter(tuple(self._files))

    def first_seen(self, name: str) -> float:
        """When the file was first seen."""
        return self._files[name].first_seen

    def observe(self, name: str, signature: Signature, now: float) -> None:
        """A look at the file: a new file, or one that changed, starts its quiet time."""
        known = self._files.get(name)
        if known is None:
            known = self._files[name] = Settling(signature, now, now)
            self._schedule(name, known)
        elif known.signature != signature:
            known.signature = signature
            known.quiet_since = now
            self._schedule(name, known)

    def touch(self, name: str, now: float) -> None:
        """An event named the file: its quiet time starts again."""
        if known := self._files.get(name):
            known.quiet_since = now
            self._schedule(name, known)

    def forget(self, name: str) -> None:
        """The file is gone or taken."""
        self._files.pop(name, None)

    def due(self, now: float) -> Iterator[str]:
        """Files whose quiet time is over: look at each once more and `confirm` it."""
        while self._due and self._due[0][0] <= now:
            _, name = heapq.heappop(self._due)
            known = self._files.get(name)
            if known is None:
                continue
            known.scheduled = False
            if self._ready_at(known) <= now:
                yield name
            else:
                self._schedule(name, known)

    def confirm(self, name: str, signature: Signature, now: float) -> bool:
        """Whether the file, looked at just now, has settled."""
        self.observe(name, signature, now)
        known = self._files[name]
        return known.signature == signature and self._ready_at(known) <= now

    def next_due(self) -> float | None:
        """When `due` will next have something to look at."""
        return self._due[0][0] if self._due else None

    def _ready_at(self, known: Settling) -> float:
        # browsers and Finder create an empty placeholder long before the data comes
        wait = self.quiet_seconds if known.signature.size else max(self.empty_seconds, self.quiet_seconds)
        return known.quiet_since + wait

    def _schedule(self, name: str, known: Settling) -> None:
        if not known.scheduled:
            known.scheduled = True
            heapq.heappush(self._due, (self._ready_at(known), name))
