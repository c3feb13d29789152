"""What is shown of jobs that have not ended, their sidecars and their text so far: never worth stopping for."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from whisperd.core.display import printable
from whisperd.core.job import Phase

if TYPE_CHECKING:
    from whisperd.core.job import Job, Progress
    from whisperd.spool.store import Store

_log = logging.getLogger(__name__)


class Shown:
    """Brings it up to date where that can be done."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def show(self, job: Job, progress: Progress, *, sync: bool = False, reason: str | None = None) -> None:
        """Bring a sidecar up to date; one that cannot be written now is written at the next change.

        A job that is transcribed has its text shown as well, and no other.
        """
        if progress.phase is Phase.TRANSCRIBING:
            self._store.partials.show(job)
        else:
            with contextlib.suppress(OSError):  # again at the next change, and at the end, which waits for it
                self._store.partials.hide(job)
        try:
            self._store.show(job, progress=progress, sync=sync, reason=reason)
        except OSError as error:
            _log.debug("%s: its sidecar cannot be written: %s", printable(job.name), error.strerror)
