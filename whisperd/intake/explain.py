"""Keeps a status file for each upload that waits, with the reason.

It is written from two seconds after the file appears, without fsync, and a bounded number at a time: in a storm they follow
within a minute or so. One that is wrong for a moment does no harm, the claim never looks at it.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from typing import TYPE_CHECKING, Protocol

from whisperd.core.slices import Slice, advance
from whisperd.intake.upload import Explanation, Upload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIRST_AFTER_SECONDS = 2.0
WRITTEN_PER_TICK = 100
PAUSE_SECONDS = 0.03  # between two such ticks, in which workers and signals get their turn
REFRESH_SECONDS = (2.0, 600.0)  # of one status file; the more files wait, the less often
REWRITE_SECONDS = 86_400.0  # though nothing has changed: systemd-tmpfiles must not take it for an old one
MANY = 500  # so many files are refreshed at the fastest rate

_log = logging.getLogger(__name__)


class Explainer(Protocol):
    """The protocol of the object that writes status files of waiting uploads."""

    def explain(self, name: str, size_bytes: int | None, reason: str) -> str | None:
        """Write the status file of a waiting upload; returns its place, for `unexplain`."""

    def unexplain(self, place: str) -> None:
        """Remove the status file at a place, if it is still that of a waiting upload."""

    def explanation_of(self, name: str) -> str | None:
        """Return the place of the status file of a waiting upload, if there is one."""

    def stale_explanations(self) -> Iterator[str | None]:
        """Yield the places of status files whose uploads are no longer in the inbox; None for a step without one."""


class Explanations:
    """Writes, updates and removes the status files of all uploads that wait.

    Args:
        explainer: the store.
        describe: the size of an upload and why it waits; None: it is no longer waiting.
    """

    def __init__(
        self, explainer: Explainer, describe: Callable[[Upload, float], tuple[int | None, str] | None]
    ) -> None:
        self._explainer = explainer
        self._describe = describe
        self._count = 0
        self._number = itertools.count()  # a heap must not compare records
        self._due: list[tuple[float, int, Upload]] = []
        self._sweep: Iterator[str | None] | None = None
        self._next_at = 0.0

    def sweep(self) -> None:
        """Begin to remove status files about uploads that disappeared while no daemon ran; `tick` continues."""
        self._sweep = self._explainer.stale_explanations()

    def watch(self, upload: Upload, now: float) -> None:
        """Keep a status file for this upload from now on, if none is kept yet."""
        if upload.explanation is None:
            upload.explanation = Explanation(now + FIRST_AFTER_SECONDS)
            self._count += 1
            self._schedule(upload, upload.explanation)

    def over(self, upload: Upload) -> None:
        """Remove the status file of an upload that was claimed or removed, unless that of the job has replaced it."""
        explanation, upload.explanation = upload.explanation, None
        if explanation is None:
            return
        self._count -= 1
        # an earlier daemon may have left one that this one had no reason to write anew
        if place := explanation.place or self._explainer.explanation_of(upload.name):
            self._explainer.unexplain(place)

    def tick(self, now: float) -> None:
        """Write the status files that are due, for a slice of time."""
        self._next_at = self._work(now)

    def next_at(self) -> float:
        """Return the time when `tick` has something to do again."""
        return self._next_at

    def _work(self, now: float) -> float:
        again = now + PAUSE_SECONDS
        share = Slice()
        for _ in range(WRITTEN_PER_TICK):
            if not self._due or self._due[0][0] > now:
                break
            at, _, upload = heapq.heappop(self._due)
            if upload.explanation is not None and upload.explanation.refresh_at == at:
                self._refresh(upload, upload.explanation, now)
                if share.is_used_up():  # some looks were made to take long
                    return again
        else:
            return again
        if self._sweep is not None:
            self._sweep_on()
            return again
        return self._due[0][0] if self._due else now + REFRESH_SECONDS[1]

    def _refresh(self, upload: Upload, explanation: Explanation, now: float) -> None:
        described = self._describe(upload, now)
        if described is None:
            self.over(upload)
            return
        if hash(described) != explanation.content or now - explanation.written_at >= REWRITE_SECONDS:
            try:
                explanation.place = self._explainer.explain(upload.name, *described) or explanation.place
                explanation.content, explanation.written_at = hash(described), now
            except OSError as error:
                _log.debug("no status file for %r: %s", upload.name, error.strerror)
        explanation.refresh_at = now + min(REFRESH_SECONDS[1], REFRESH_SECONDS[0] * max(1.0, self._count / MANY))
        self._schedule(upload, explanation)

    def _schedule(self, upload: Upload, explanation: Explanation) -> None:
        heapq.heappush(self._due, (explanation.refresh_at, next(self._number), upload))

    def _sweep_on(self) -> None:
        assert self._sweep is not None
        try:
            if not advance(map(self._unexplain_stale, self._sweep)):
                self._sweep = None
        except OSError:
            self._sweep = None

    def _unexplain_stale(self, place: str | None) -> None:
        if place is not None:
            self._explainer.unexplain(place)
