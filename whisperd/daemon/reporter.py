"""Gathers what the metrics show, and gives it out: as a file, over HTTP on the loopback interface, or both."""

from __future__ import annotations

import logging
import os
import shutil
import time
from typing import TYPE_CHECKING

from whisperd.core.errors import BootError
from whisperd.daemon.child import State
from whisperd.spool.durable import Folder, make_directory, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from threading import Thread
    from wsgiref.simple_server import WSGIServer

    from whisperd.core import events
    from whisperd.daemon.jobs import Jobs
    from whisperd.daemon.pool import Pool
    from whisperd.intake.inbox import Inbox
    from whisperd.listeners.metrics import Metrics, Vitals
    from whisperd.settings.sections import MetricsOptions
    from whisperd.spool.layout import Layout

ADDRESS = "127.0.0.1"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_log = logging.getLogger(__name__)


class Reporter:
    """Brings the metrics up to date every few seconds; what was set at the start of the daemon stays.

    Args:
        settings: where they go; neither file nor port: nowhere, and nothing is loaded.
        layout: the spool.
        emitter: heard for what is counted.
        vitals: what there is now.

    Raises:
        BootError: the extra is not installed, or the port cannot be had.
    """

    def __init__(
        self, settings: MetricsOptions, layout: Layout, emitter: events.Emitter, vitals: Callable[[], Vitals]
    ) -> None:
        self._settings = settings
        self._vitals = vitals
        self._next_at = float("-inf")
        self._is_failing = False
        self._server: tuple[WSGIServer, Thread] | None = None
        self._metrics: Metrics | None = None
        if settings.textfile is None and settings.port is None:
            self._next_at = float("inf")
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

    def tick(self, now: float) -> None:
        """Bring it up to date if it is time."""
        if self._metrics is None or now < self._next_at:
            return
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

    def next_at(self) -> float:
        """Return the time when `tick` has something to do again."""
        return self._next_at

    def close(self) -> None:
        """Serve no more; the file stays, with the last figures."""
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


def vitals(layout: Layout, jobs: Jobs, pool: Pool, inbox: Inbox, *, notices: int) -> Vitals:
    """What there is now; cheap enough for every few seconds."""
    from whisperd.listeners.metrics import Vitals, WorkerVitals  # noqa: PLC0415  # see Reporter

    disk = shutil.disk_usage(layout.root)
    age = None if inbox.scanned_at is None else time.monotonic() - inbox.scanned_at
    return Vitals(
        arriving=len(inbox),
        queued=jobs.waiting,
        running=len(jobs.running),
        ending=len(jobs) - jobs.waiting - len(jobs.running),
        notices=notices,
        free_bytes=disk.free,
        total_bytes=disk.total,
        scanned_at=None if age is None else time.time() - age,
        workers=tuple(
            WorkerVitals(child.device, _resident_bytes(child.pid), child.device_bytes)
            for child in pool.children()
            if child.state is not State.BOOTING
        ),
        workers_failing=len(pool.failing),
    )


def _resident_bytes(pid: int) -> int:
    """Main memory of a process (proc_pid_statm(5)); 0 when it has just ended."""
    try:
        fd = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int(os.read(fd, 200).split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0
    finally:
        os.close(fd)


def _replace(path: Path, data: bytes) -> None:
    """In one step: node_exporter must never read half a file."""
    make_directory(path.parent)
    with Folder(path.parent) as folder:
        write(folder, path.name, data, sync=False)
