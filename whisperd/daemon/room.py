"""Is there room for another job? While there is not, or the disk has other troubles, nothing is claimed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.core import events
from whisperd.core.display import mebibytes
from whisperd.core.errors import SpoolFull

if TYPE_CHECKING:
    from whisperd.spool.layout import Layout

PAUSE_SECONDS = 5.0  # between looks at a full disk


class Room:
    """Says once that claims are paused, and once that they go on."""

    def __init__(self, layout: Layout, emitter: events.Emitter) -> None:
        self._layout = layout
        self._emit = emitter.emit
        self._paused_until: float | None = None
        self.why = ""  # in a few words, for those who wait

    @property
    def is_paused(self) -> bool:
        """Whether nothing has been written since the last trouble."""
        return self._paused_until is not None

    def is_there(self, min_free: int, now: float) -> bool:
        """Whether a claim may be tried: `min_free` bytes are left, and the last pause is over."""
        if self._paused_until is not None and now < self._paused_until:
            return False
        try:
            free = self._layout.free_bytes()
        except OSError as error:
            message = f"the spool in {self._layout.root} cannot be used: {error.strerror}"
            self.pause(SpoolFull(message, hint="look into the cause; it goes on by itself"), now)
            return False
        if free < min_free:
            message = f"the disk is nearly full: {mebibytes(free)} free, {mebibytes(min_free)} wanted"
            self.pause(SpoolFull(message, hint="make room, or lower intake.min_free; it goes on by itself"), now)
            self.why = "the disk is nearly full"
            return False
        return True

    def pause(self, error: SpoolFull, now: float) -> None:
        """Claim nothing for a while."""
        if self._paused_until is None:
            self._emit(events.ClaimsPaused(error.message, error.hint))
        self._paused_until = now + PAUSE_SECONDS
        self.why = error.message

    def resume(self) -> None:
        """Say so only once something has been written: room for nothing is no room."""
        if self._paused_until is not None:
            self._paused_until = None
            self._emit(events.ClaimsResumed())
