"""Keeps `.work/.devices.json`, from which `whisperd status` knows the devices of a running daemon.

The file is no state: it is replaced without fsync when something changes, and removed when the daemon stops.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from typing import TYPE_CHECKING, Any

from whisperd.core.display import printable
from whisperd.core.job import utc_now
from whisperd.spool.durable import Folder, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisperd.core import events
    from whisperd.settings.config import Config
    from whisperd.spool.layout import Layout

FILE = ".devices.json"
EVERY_SECONDS = 1.0
NEVER = float("inf")

_log = logging.getLogger(__name__)


class DeviceReport:
    """The part of the loop that writes the report when it changes, at most once a second.

    Args:
        layout: the spool.
        vitals: the state of each device; cheap enough for every turn of the loop.
    """

    def __init__(self, layout: Layout, vitals: Callable[[], tuple[events.DeviceVitals, ...]]) -> None:
        self._layout = layout
        self._vitals = vitals
        self._written: tuple[events.DeviceVitals, ...] | None = None
        self._write_at = float("-inf")

    def tick(self, now: float) -> float:
        """Write the report if something changed; returns the time of the next call."""
        found = self._vitals()
        if found == self._written:
            return NEVER
        if now >= self._write_at:
            self._write_at, self._written = now + EVERY_SECONDS, found
            self._write(found, now)
            return NEVER
        return self._write_at

    def waitables(self) -> list[Any]:
        """Return nothing to wait for."""
        return []

    def configure(self, config: Config) -> None:
        """Need nothing of the configuration."""

    def close(self) -> None:
        """Remove the report."""
        with contextlib.suppress(OSError), Folder(self._layout.work) as work:
            os.unlink(FILE, dir_fd=work.fd)

    def _write(self, found: tuple[events.DeviceVitals, ...], now: float) -> None:
        rows = [
            {
                "name": each.name,
                "model": each.model,
                "workers": each.workers,
                "speed": None if each.speed is None else round(each.speed, 1),
                "reason": each.reason or None,
                "retry_at": None if each.retry_at is None else utc_now(now - each.retry_at),
            }
            for each in found
        ]
        try:
            with Folder(self._layout.work) as work, Folder(self._layout.staging) as staging:
                write(work, FILE, json.dumps(rows).encode(), staging=staging, sync=False)
        except OSError as error:
            _log.debug("the report on devices cannot be written: %s", error.strerror)


def read(layout: Layout) -> list[dict[str, Any]]:
    """Return the devices of the running daemon as `whisperd status --json` shows them; none where this user may not look."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError), Folder(layout.work) as work:
        rows = json.loads(work.read(FILE))
        texts, figures = ("name", "model", "reason", "retry_at"), ("workers", "speed")
        return [
            {key: None if row[key] is None else printable(str(row[key])) for key in texts}
            | {key: row[key] if isinstance(row[key], int | float) else None for key in figures}
            for row in rows
        ]
    return []
