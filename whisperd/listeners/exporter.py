"""Writes the metrics to a file, serves them over HTTP on the loopback interface, or both."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from whisperd.core.errors import BootError
from whisperd.spool.durable import Folder, make_directory, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from threading import Thread
    from wsgiref.simple_server import WSGIServer

    from whisperd.core import events
    from whisperd.listeners.metrics import Metrics
    from whisperd.settings.config import Config
    from whisperd.settings.sections import MetricsOptions
    from whisperd.spool.layout import Layout

ADDRESS = "127.0.0.1"
NEVER = float("inf")

_log = logging.getLogger(__name__)


class Exporter:
    """The part of the loop that updates the metrics every few seconds, with the options of the start of the daemon.

    Args:
        settings: where they go; neither file nor port: nowhere, and nothing is loaded.
        layout: the spool.
        emitter: heard for what is counted.
        vitals: what there is now.

    Raises:
        BootError: the extra is not installed, or the port cannot be had.
    """

    def __init__(
        self, settings: MetricsOptions, layout: Layout, emitter: events.Emitter, vitals: Callable[[], events.Vitals]
    ) -> None:
        self._settings = settings
        self._vitals = vitals
        self._next_at = float("-inf")
        self._is_failing = False
        self._server: tuple[WSGIServer, Thread] | None = None
        self._metrics: Metrics | None = None
        if settings.textfile is None and settings.port is None:
            self._next_at = NEVER
            return
        try:
            from whisperd.listeners.metrics import Metrics  # noqa: PLC0415  # an extra, and memory for who wants it
        except ImportError as error:
            raise BootError(
                "the metrics need the package prometheus-client", hint="run `pip install 'whisperd[metrics]'`"
            ) from error
        self._metrics = Metrics(str(layout.root), started_at=time.time())
        emitter.subscribe(self._metrics.heard)
        if settings.port is not None:
            self._serve(settings.port)

    def tick(self, now: float) -> float:
        """Update the metrics if it is time; returns the time of the next call."""
        if self._metrics is None or now < self._next_at:
            return self._next_at
        self._next_at = now + self._settings.every_seconds
        try:
            self._metrics.update(self._vitals())
            if self._settings.textfile is not None:
                _replace(self._settings.textfile, self._metrics.text())
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:  # said once, or a full disk would fill the journal too
                _log.warning("the metrics cannot be written: %s", error)
            self._is_failing = True
        return self._next_at

    def waitables(self) -> list[Any]:
        """Return nothing to wait for."""
        return []

    def configure(self, config: Config) -> None:
        """Do nothing; changes take effect at the next start."""

    def close(self) -> None:
        """Stop serving; the file stays with the last figures."""
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join()

    def _serve(self, port: int) -> None:
        from prometheus_client import start_http_server  # noqa: PLC0415

        assert self._metrics is not None
        try:
            # its threads read figures and touch nothing else
            self._server = start_http_server(port, addr=ADDRESS, registry=self._metrics.registry)
        except OSError as error:
            raise BootError(
                f"metrics cannot be served on {ADDRESS}:{port}: {error.strerror}",
                hint="choose another metrics.port, or metrics.textfile, which needs no network",
            ) from error


def _replace(path: Path, data: bytes) -> None:
    """Replace a file in one step, since node_exporter must never read half of it."""
    make_directory(path.parent)
    with Folder(path.parent) as folder:
        write(folder, path.name, data, sync=False)
