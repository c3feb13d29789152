"""Writes the text of a job so far to a file in its directory, from which the supervisor publishes it."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING

from whisperd.core.transcript import Transcript
from whisperd.output import formats
from whisperd.spool.durable import Folder, extend

if TYPE_CHECKING:
    from whisperd.protocol import Work
    from whisperd.worker.assembly import Assembly

FILE = "partial.txt"
EVERY_SECONDS = 1.0

_log = logging.getLogger(__name__)


class PartialText:
    """The text so far of one job; each attempt begins a new file, filled at once from the resume log."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._options = work.spec.output.evolve(formats=("txt",))
        self._due_at = 0.0
        self._windows = 0
        self._is_logged = False
        with contextlib.suppress(OSError), Folder(work.directory) as own:
            os.unlink(FILE, dir_fd=own.fd)

    def update(self, assembly: Assembly) -> None:
        """Write the final segments, at most once a second; a failure is logged once and does not harm the job."""
        now = time.monotonic()
        if now < self._due_at or assembly.finished_windows == self._windows:
            return
        self._windows = assembly.finished_windows
        segments = assembly.final()
        if not segments:
            return
        self._due_at = now + EVERY_SECONDS
        text = formats.render(Transcript("", segments, assembly.language or ""), self._options)["txt"]
        try:
            with Folder(self._work.directory) as own:
                extend(own, FILE, text)  # durably: after a power cut it tells whether a file in the outbox is ours
        except OSError as error:
            if not self._is_logged:
                self._is_logged = True
                _log.warning("job %s: its text so far cannot be written: %s", self._work.job_id, error.strerror)
