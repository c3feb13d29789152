"""The transcripts of a job on their way from its directory into the outbox, and back."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from whisperd.spool import names, pages
from whisperd.spool.durable import Folder, failpoint, move, share

if TYPE_CHECKING:
    from whisperd.core.job import Job, Result
    from whisperd.spool.layout import Layout

OUTPUTS = "outputs"


def publish(layout: Layout, job: Job, result: Result) -> None:
    """Move what is still in the job's directory to its place in the outbox; may be repeated.

    Raises:
        OSError: something is in the way (FileExistsError, NotADirectoryError), the disk is full, ...
    """
    folders, file = names.split(job.place)
    with Folder(layout.outbox, folders, create=True) as outbox, _rendered(layout, job) as rendered:
        pages.address(rendered, job.place)
        for kind in result.rendered:
            if not rendered.exists(kind):
                continue  # an earlier try that was cut off has published it
            fd = os.open(kind, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=rendered.fd)
            try:
                share(fd, outbox)
            finally:
                os.close(fd)
            move(rendered, kind, outbox, names.output(file, kind))
            failpoint("publish.after_output")


def retract(layout: Layout, job: Job, result: Result) -> None:
    """Take back what was published under a place that turned out to be taken; may be repeated.

    Raises:
        OSError: the disk is full, a folder is not writable, ...
    """
    folders, file = names.split(job.place)
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError),  # a user has taken it away with its folder
        Folder(layout.outbox, folders) as outbox,
        _rendered(layout, job) as rendered,
    ):
        for kind in result.rendered:
            if not rendered.exists(kind):
                with contextlib.suppress(FileNotFoundError):
                    move(outbox, names.output(file, kind), rendered, kind)


def _rendered(layout: Layout, job: Job) -> Folder:
    return Folder(layout.job_directory(job.id), (OUTPUTS,), create=True)
