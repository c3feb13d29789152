"""Explained waiting: each file that is not taken has a sidecar that says why.

Notes are written from two seconds after a file appears, without fsync, and a bounded number at a time: in a storm they
follow within a minute or so. A note that is wrong for a moment does no harm, the claim never looks at one.
"""

from __future__ import annotations

import heapq
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from whisperd.core.slices import Slice, advance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOTE_AFTER_SECONDS = 2.0
NOTES_PER_TICK = 100
PAUSE_SECONDS = 0.03  # between two such ticks, in which workers and signals get their turn
REFRESH_SECONDS = (2.0, 600.0)  # of one note; the more files wait, the less often
REWRITE_SECONDS = 86_400.0  # though nothing has changed: systemd-tmpfiles must not take it for an old one
NOTES_AT_EASE = 500  # so many files are refreshed at the fastest rate

_log = logging.getLogger(__name__)


class Notes(Protocol):
    """Where notes are kept: the store."""

    def explain(self, name: str, size_bytes: int | None, reason: str) -> str | None:
        """Write the note on a file; returns where, for `unexplain`."""

    def unexplain(self, place: str) -> None:
        """Remove a note, if it still is one."""

    def explanation_of(self, name: str) -> str | None:
        """The place of the note on a file, if there is one."""

    def stale_explanations(self) -> Iterator[str | None]:
        """The places of notes on files that are not in the inbox any more, step by step; None for a step without one."""


@dataclass(slots=True)
class _Note:
    refresh_at: float
    content: int = 0  # hash of what is written
    written_at: float = 0.0
    place: str | None = None


class Waiting:
    """Keeps the notes.

    Args:
        notes: the store.
        describe: the size of a file and why it waits; None: it is no longer waiting.
    """

    def __init__(self, notes: Notes, describe: Callable[[str, float], tuple[int | None, str] | None]) -> None:
        self._notes = notes
        self._describe = describe
        self._known: dict[str, _Note] = {}
        self._due: list[tuple[float, str]] = []
        self._sweep: Iterator[str | None] | None = None

    def __len__(self) -> int:
        return len(self._known)

    def sweep(self) -> None:
        """Begin to remove what an earlier daemon left about files that are gone; `tick` goes on with it."""
        self._sweep = self._notes.stale_explanations()

    def watch(self, name: str, now: float) -> None:
        """A file waits; one that is known already is fine."""
        if name not in self._known:
            self._schedule(name, _Note(now + NOTE_AFTER_SECONDS))

    def over(self, name: str) -> None:
        """It is claimed or gone: its note goes, unless the job's own sidecar has taken the place."""
        note = self._known.pop(name, None)
        # an earlier daemon may have left one that this one had no reason to write anew
        place = note and (note.place or self._notes.explanation_of(name))
        if place:
            self._notes.unexplain(place)

    def tick(self, now: float) -> float:
        """Write what is due; returns when to come again."""
        again = now + PAUSE_SECONDS
        share = Slice()
        for _ in range(NOTES_PER_TICK):
            if not self._due or self._due[0][0] > now:
                break
            at, name = heapq.heappop(self._due)
            note = self._known.get(name)
            if note is not None and note.refresh_at == at:
                self._refresh(name, note, now)
                if share.is_used_up():  # some looks were made to take long
                    return again
        else:
            return again
        if self._sweep is not None:
            self._sweep_on()
            return again
        return self._due[0][0] if self._due else now + REFRESH_SECONDS[1]

    def _refresh(self, name: str, note: _Note, now: float) -> None:
        described = self._describe(name, now)
        if described is None:
            self.over(name)
            return
        if hash(described) != note.content or now - note.written_at >= REWRITE_SECONDS:
            try:
                note.place = self._notes.explain(name, *described) or note.place
                note.content, note.written_at = hash(described), now
            except OSError as error:
                _log.debug("no note on %r: %s", name, error.strerror)
        crowd = len(self._known) / NOTES_AT_EASE
        note.refresh_at = now + min(REFRESH_SECONDS[1], REFRESH_SECONDS[0] * max(1.0, crowd))
        self._schedule(name, note)

    def _schedule(self, name: str, note: _Note) -> None:
        self._known[name] = note
        heapq.heappush(self._due, (note.refresh_at, name))

    def _sweep_on(self) -> None:
        assert self._sweep is not None
        try:
            if not advance(map(self._unexplain_stale, self._sweep)):
                self._sweep = None
        except OSError:
            self._sweep = None

    def _unexplain_stale(self, place: str | None) -> None:
        if place is not None:
            self._notes.unexplain(place)
