"""The text of a job so far, in its directory: it grows as windows are finished, and the supervisor shows it to people."""

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
    from whisperd.worker.recording import Recording

FILE = "partial.txt"
EVERY_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Partial:
    """The file of one job, begun anew: what is in the journal comes back at once."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._options = work.spec.output.evolve(formats=("txt",))
        self._due_at = 0.0
        self._windows = 0
        self._told = False
        with contextlib.suppress(OSError), Folder(work.directory) as own:
            os.unlink(FILE, dir_fd=own.fd)

    def keep(self, recording: Recording) -> None:
        """Bring it up to date, now and then; where that cannot be done the job goes on without, and it is logged once."""
        now = time.monotonic()
        if now < self._due_at or recording.finished_windows == self._windows:
            return
        self._windows = recording.finished_windows
        segments = recording.settled()
        if not segments:
            return
        self._due_at = now + EVERY_SECONDS
        text = formats.render(Transcript("", segments, recording.language or ""), self._options)["txt"]
        try:
            with Folder(self._work.directory) as own:
                extend(own, FILE, text)  # durably: by it a file in the outbox is known after a power cut
        except OSError as error:
            if not self._told:
                self._told = True
                _log.warning("job %s: its text so far cannot be written: %s", self._work.job_id, error.strerror)
