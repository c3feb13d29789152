"""Removes old files once an hour according to `retention`, a few at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from whisperd.core import events
from whisperd.core.heap import Trimmer
from whisperd.core.slices import advance
from whisperd.daemon.loop import Part
from whisperd.spool.retention import prune

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.settings.config import Config
    from whisperd.settings.sections import RetentionOptions
    from whisperd.spool.layout import Layout

EVERY_SECONDS = 3600.0
FIRST_SECONDS = 60.0  # after a start there is more urgent work
PAUSE_SECONDS = 0.03  # between two slices: this may take its time


class Housekeeper(Part):
    """The part of the loop that keeps folders below their size limits, and returns free memory to the system."""

    def __init__(self, layout: Layout, settings: RetentionOptions, emitter: events.Emitter) -> None:
        self._layout = layout
        self._emit = emitter.emit
        self._settings = settings
        self._work: Iterator[None] | None = None
        self._next_at: float | None = None
        self._trimmer = Trimmer()

    def configure(self, config: Config) -> None:
        """Use these limits from the next round on."""
        self._settings = config.retention

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
        settings = self._settings
        limits = (("done", settings.done_max), ("failed", settings.failed_max), ("outbox", settings.outbox_max))
        for room, limit in limits:
            if limit is None:
                continue
            files = freed = 0
            for size in prune(self._layout, room, limit, now=time.time()):
                files, freed = files + bool(size), freed + size
                yield
            if files:
                self._emit(events.FilesPruned(room, files, freed))
