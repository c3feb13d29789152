"""The text of a job so far: on its way from the job's directory, where the worker lets it grow, into the outbox.

It stands there only while the job is transcribed. Since it does nothing but grow, a file tells by itself whose it is: what
is not the beginning of the job's text is somebody else's, and let be. No record is needed that a crash could make a liar of.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

from whisperd.core.display import printable
from whisperd.spool import names
from whisperd.spool.durable import NOT_THERE, Folder, extend, failpoint

if TYPE_CHECKING:
    from whisperd.core.job import Job
    from whisperd.core.options import JobSpec
    from whisperd.spool.layout import Layout

FILE = "partial.txt"  # in the job's directory
LONGEST_BYTES = 4 << 20  # of a text that is shown
_NOT_OURS = NOT_THERE | {errno.EACCES, errno.EPERM}

_log = logging.getLogger(__name__)


def outputs(formats: tuple[str, ...], spec: JobSpec | None) -> tuple[str, ...]:
    """All that a job may write beside its sidecar: its transcripts, and the text so far where that is wanted."""
    return (*formats, names.PARTIAL) if spec is not None and spec.output.partial else formats


class Partials:
    """Shows and hides them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._shown: dict[str, bytes] = {}  # job id -> its text; what is left of it when somebody empties `.work`
        self._told: set[str] = set()

    def show(self, job: Job) -> None:
        """Bring one up to date; where that cannot be done the job goes on without, and a line in the journal says why."""
        if job.spec is None or not job.spec.output.partial:
            return
        try:
            self._extend(job)
        except OSError as error:
            if job.id not in self._told:
                self._told.add(job.id)
                _log.warning("%s: its text so far cannot be shown: %s", printable(job.name), error.strerror)

    def _extend(self, job: Job) -> None:
        text = self._text(job.id)
        if not text or text == self._shown.get(job.id):
            return
        self._shown[job.id] = text
        folders, file = names.split(job.place)
        with Folder(self._layout.outbox, folders, create=True) as outbox, Folder(self._layout.staging) as staging:
            extend(outbox, names.output(file, names.PARTIAL), text, staging=staging, sync=False)
        failpoint("partial.after_show")

    def hide(self, job: Job) -> None:
        """Remove one; may be repeated.

        Raises:
            OSError: it stays, and would be wrong if the job went on.
        """
        if job.spec is not None and job.spec.output.partial:
            self.remove(job.id, job.place)

    def remove(self, job_id: str, place: str) -> None:
        """Remove what stands under this place, if it is the beginning of this job's text.

        Raises:
            OSError: it cannot be told, or not be removed.
        """
        text = self._text(job_id)
        folders, file = names.split(place)
        name = names.output(file, names.PARTIAL)
        try:
            with Folder(self._layout.outbox, folders) as outbox:
                standing = outbox.read(name, len(text) + 1)
                if standing and text.startswith(standing):
                    os.unlink(name, dir_fd=outbox.fd)
                    failpoint("partial.after_hide")
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise
        self._shown.pop(job_id, None)
        self._told.discard(job_id)

    def _text(self, job_id: str) -> bytes:
        """The whole lines that the worker has written, or what is known of them."""
        text = b""
        try:
            with Folder(self._layout.job_directory(job_id)) as own:
                text = own.read(FILE, LONGEST_BYTES)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
        return text[: text.rfind(b"\n") + 1] or self._shown.get(job_id, b"")
