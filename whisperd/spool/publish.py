"""Moves a job's texts from its directory into the outbox: the transcripts at its end, and before that the text so far.

Every step may be repeated, and `retract` undoes `publish` where a name turned out to be taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import logging
import os
import re
from typing import TYPE_CHECKING

from whisperd.core.display import printable
from whisperd.core.job import original_url
from whisperd.spool import names
from whisperd.spool.durable import NOT_THERE, Folder, extend, failpoint, move, share, write

if TYPE_CHECKING:
    from whisperd.core.job import Job, Result
    from whisperd.core.options import JobSpec
    from whisperd.spool.layout import Layout

OUTPUTS = "outputs"  # in the job's directory: what the worker has rendered
PAGE = "html"
PAGE_BYTES_MAX = 1 << 30
PARTIAL_FILE = "partial.txt"  # in the job's directory
PARTIAL_BYTES_MAX = 4 << 20  # of a text so far that is shown

_LINK = re.compile(rb'(?<==")(?:\.\./)+done/[^"]*')
_NOT_OURS = NOT_THERE | {errno.EACCES, errno.EPERM}

_log = logging.getLogger(__name__)


def linked(layout: Layout, job: Job, result: Result) -> Result:
    """Let the transcript page play the original of the job's place, and return the result with its digest; may be repeated.

    The worker wrote the page for the place that the job had then. If that was taken meanwhile, the page would play a
    stranger's recording. A quote in the text of the page is escaped, so only the page's own links look like links.
    """
    with _rendered(layout, job) as rendered:
        if PAGE not in result.rendered or not rendered.exists(PAGE):
            return result
        page = rendered.read(PAGE, PAGE_BYTES_MAX)
        url = original_url(job.place).encode("ascii")
        content = _LINK.sub(lambda _: url, page)
        if content != page:
            write(rendered, PAGE, content)
    return dataclasses.replace(result, digests=result.digests | {PAGE: hashlib.sha256(content).hexdigest()})


def publish(layout: Layout, job: Job, result: Result) -> None:
    """Move the transcripts that are still in the job's directory into the outbox; may be repeated.

    Raises:
        OSError: a name is taken (FileExistsError, NotADirectoryError), the disk is full, ...
    """
    folders, file = names.split(job.place)
    with Folder(layout.outbox, folders, create=True) as outbox, _rendered(layout, job) as rendered:
        for kind in result.rendered:
            if not rendered.exists(kind):
                continue  # an earlier try that was interrupted has published it
            place(rendered, kind, outbox, names.output(file, kind))
            failpoint("publish.after_output")


def place(rendered: Folder, kind: str, outbox: Folder, name: str) -> None:
    """Move one rendered file into a folder of the outbox, for the group of that folder.

    Raises:
        FileExistsError: the name is taken.
        OSError: the disk is full, ...
    """
    fd = os.open(kind, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=rendered.fd)
    try:
        share(fd, outbox)
    finally:
        os.close(fd)
    move(rendered, kind, outbox, name)


def retract(layout: Layout, job: Job, result: Result) -> None:
    """Take back the transcripts that were published under names of which one was taken; may be repeated.

    Raises:
        OSError: the disk is full, a folder is not writable, ...
    """
    folders, file = names.split(job.place)
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError),  # a user has taken them away with their folder
        Folder(layout.outbox, folders) as outbox,
        _rendered(layout, job) as rendered,
    ):
        for kind in result.rendered:
            if not rendered.exists(kind):
                with contextlib.suppress(FileNotFoundError):
                    move(outbox, names.output(file, kind), rendered, kind)


def _rendered(layout: Layout, job: Job) -> Folder:
    return Folder(layout.job_directory(job.id), (OUTPUTS,), create=True)


def kinds_of(formats: tuple[str, ...], spec: JobSpec | None) -> tuple[str, ...]:
    """The extensions of all that a job may write: its formats, and the text so far where that is wanted."""
    return (*formats, names.PARTIAL) if spec is not None and spec.output.partial else formats


class PartialTexts:
    """Shows the text of each running job so far, and removes it when the job ends or is interrupted.

    The text only ever grows, so what is in the outbox shows by itself whose it is: a file that is not the beginning of the
    job's text belongs to somebody else and is left alone. A record of it could be wrong after a crash.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._latest: dict[str, bytes] = {}  # job id -> its text: all that is left of it when somebody empties `.work`
        self._warned: set[str] = set()

    def show(self, job: Job) -> None:
        """Bring the text of a job up to date; if that fails, the job continues without it and one warning says why."""
        if job.spec is None or not job.spec.output.partial:
            return
        try:
            self._extend(job)
        except OSError as error:
            if job.id not in self._warned:
                self._warned.add(job.id)
                _log.warning(
                    "%s: its text so far cannot be shown: %s",
                    printable(job.name),
                    error.strerror,
                    extra={"job": job.id},
                )

    def _extend(self, job: Job) -> None:
        text = self._text(job.id)
        if not text or text == self._latest.get(job.id):
            return
        self._latest[job.id] = text
        folders, file = names.split(job.place)
        with Folder(self._layout.outbox, folders, create=True) as outbox, Folder(self._layout.staging) as staging:
            extend(outbox, names.output(file, names.PARTIAL), text, staging=staging, sync=False)
        failpoint("partial.after_show")

    def hide(self, job: Job) -> None:
        """Remove the text of a job; may be repeated.

        Raises:
            OSError: it cannot be removed, and would be wrong if the job went on.
        """
        if job.spec is not None and job.spec.output.partial:
            self.remove(job.id, job.place)

    def remove(self, job_id: str, place: str) -> None:
        """Remove the text at a place, if it is the beginning of this job's.

        Raises:
            OSError: it cannot be read, or not be removed.
        """
        text = self._text(job_id)
        folders, file = names.split(place)
        name = names.output(file, names.PARTIAL)
        try:
            with Folder(self._layout.outbox, folders) as outbox:
                shown = outbox.read(name, len(text) + 1)
                if shown and text.startswith(shown):
                    os.unlink(name, dir_fd=outbox.fd)
                    failpoint("partial.after_hide")
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise
        self._latest.pop(job_id, None)
        self._warned.discard(job_id)

    def _text(self, job_id: str) -> bytes:
        """The whole lines that the worker has written, or the last that were read."""
        text = b""
        try:
            with Folder(self._layout.job_directory(job_id)) as own:
                text = own.read(PARTIAL_FILE, PARTIAL_BYTES_MAX)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
        return text[: text.rfind(b"\n") + 1] or self._latest.get(job_id, b"")
