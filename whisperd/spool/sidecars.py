"""The sidecars in the outbox: which document may stand where, and which may take its place."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from whisperd.spool import names, sidecar
from whisperd.spool.durable import NOT_THERE, Folder, write

if TYPE_CHECKING:
    from whisperd.core.job import Job
    from whisperd.spool.layout import Layout
    from whisperd.spool.places import Places


class Sidecars:
    """Writes and removes them; what belongs to somebody else is let be."""

    def __init__(self, layout: Layout, places: Places) -> None:
        self._layout = layout
        self._places = places

    def write(self, place: str, document: dict[str, Any], *, sync: bool) -> None:
        """Write one, in place of the one that stands there.

        Raises:
            FileExistsError: what stands there is another job's, or no sidecar.
        """
        folders, file = names.split(place)
        name = names.sidecar(file)
        with Folder(self._layout.outbox, folders, create=True) as outbox, Folder(self._layout.staging) as staging:
            stands = outbox.exists(name)
            if stands and not self._may_replace(outbox, place, document):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
            write(outbox, name, sidecar.encode(document), staging=staging, sync=sync, replace=stands)

    def hide(self, job: Job) -> None:
        """Remove the job's sidecar.

        Raises:
            OSError: it stays, and would be wrong if the job went on.
        """
        try:
            self.remove(job.place, job.id)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise

    def remove(self, place: str, job_id: str | None) -> None:
        """Remove a sidecar, if it is this job's; without an id it is a note on a file in the inbox.

        Raises:
            OSError: it cannot be read, or not be removed.
        """
        folders, file = names.split(place)
        with Folder(self._layout.outbox, folders) as outbox:
            document = sidecar.decode(outbox.read(names.sidecar(file)))
            if document and document["id"] == job_id:
                os.unlink(names.sidecar(file), dir_fd=outbox.fd)

    def _may_replace(self, outbox: Folder, place: str, document: dict[str, Any]) -> bool:
        try:
            old = sidecar.decode(outbox.read(names.sidecar(names.split(place)[1])))
        except OSError:
            return False
        if document["id"] is None:  # a note gives way to a job's sidecar, and to the note on another file
            return old is not None and old["id"] is None and old.get("source") == document["source"]
        return (old is not None and old["id"] == document["id"]) or self._places.is_superseded(place)
