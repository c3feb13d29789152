"""Which names a job's files get: one suffix for the whole job, and nothing that exists is ever touched."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from whisperd.core.display import printable
from whisperd.core.job import Status
from whisperd.spool import names, sidecar
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from pathlib import Path

    from whisperd.spool.layout import Layout

INDEX = "outbox/index.html"  # the supervisor's own page; no job may have it, whether or not it is written now


class Places:
    """Hands out places and remembers those of the jobs under way."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._held: dict[str, frozenset[str]] = {}  # job id -> every path it may write
        self._holders: dict[str, str] = {}  # the same, path by path: thousands of jobs may be under way

    def hold(self, job_id: str, place: str, formats: tuple[str, ...], ticket: str = "") -> None:
        """Remember that a job writes there, and nowhere else any more."""
        self.drop(job_id)
        self._held[job_id] = paths = _paths(place, formats, ticket)
        self._holders.update(dict.fromkeys(paths, job_id))

    def drop(self, job_id: str) -> None:
        """The job has ended; what it wrote now speaks for itself."""
        for path in self._held.pop(job_id, ()):
            if self._holders.get(path) == job_id:
                del self._holders[path]

    def choose(self, job_id: str, name: str, formats: tuple[str, ...], ticket: str = "") -> str:
        """The first place for `name` where nothing stands and no other job is going, held from now on.

        Args:
            job_id: who asks.
            name: path relative to the inbox.
            formats: of the transcripts.
            ticket: the suffix of the job's own ticket, which will lie beside the original; empty: it has none.

        Raises:
            OSError: a folder cannot be read.
        """
        folders, file = names.split(name)
        folders = self._free_folders(folders)

        def is_taken(number: int) -> bool:
            place = names.join(folders, names.numbered(file, number))
            paths = _paths(place, formats, ticket)
            is_held = any(self._holders.get(path, job_id) != job_id for path in paths)
            return is_held or any(self._is_taken(path, place) for path in paths)

        place = names.join(folders, names.numbered(file, names.first_free(is_taken)))
        self.hold(job_id, place, formats, ticket)
        return place

    def _free_folders(self, folders: tuple[str, ...]) -> tuple[str, ...]:
        """The mirrored folders, each renamed where a file or a symlink stands in its way (`alice` -> `alice-2`)."""
        chosen: tuple[str, ...] = ()
        rooms = (self._layout.outbox, self._layout.done, self._layout.failed)
        for part in folders:

            def is_taken(number: int, above: tuple[str, ...] = chosen, part: str = part) -> bool:
                return any(_blocked(room, above, names.numbered(part, number)) for room in rooms)

            chosen = (*chosen, names.numbered(part, names.first_free(is_taken)))
        return chosen

    def _is_taken(self, path: str, place: str) -> bool:
        if path == INDEX:
            return True
        if not self._stands(path):
            return False
        # a sidecar makes room for a sidecar alone: that is replaced, while a transcript is moved and overwrites nothing
        return path != _sidecar_path(place) or not self.is_superseded(place)

    def _stands(self, path: str) -> bool:
        room, _, rest = path.partition("/")
        folders, file = names.split(rest)
        try:
            with Folder(self._layout.root / room, folders) as folder:
                return folder.exists(file)
        except FileNotFoundError:
            return False

    def is_superseded(self, place: str) -> bool:
        """Whether the sidecar of a place speaks of nothing that still exists.

        That is a note on a waiting upload, and the sidecar of a failed job whose original was moved back to be retried.
        """
        folders, file = names.split(place)
        try:
            with Folder(self._layout.outbox, folders) as outbox:
                document = sidecar.decode(outbox.read(names.sidecar(file)))
            if document is None:
                return False
            if document["id"] is None:
                return bool(document["status"] == Status.PENDING)
            original = f"failed/{place}"
            has_failed = (document["status"], document["original"]) == (Status.FAILED, printable(original))
            return has_failed and not self._stands(original)
        except OSError:
            return False


def _paths(place: str, formats: tuple[str, ...], ticket: str) -> frozenset[str]:
    folders, file = names.split(place)
    outputs = {f"outbox/{names.join(folders, names.output(file, kind))}" for kind in formats}
    ends = [place, names.join(folders, names.ticket(file, ticket))] if ticket else [place]
    originals = {f"{room}/{end}" for room in ("done", "failed") for end in ends}
    return frozenset(outputs | originals | {_sidecar_path(place)})


def _sidecar_path(place: str) -> str:
    folders, file = names.split(place)
    return f"outbox/{names.join(folders, names.sidecar(file))}"


def _blocked(room: Path, above: tuple[str, ...], folder: str) -> bool:
    """Whether something that is no folder has the name of a folder.

    Raises:
        OSError: the folders above cannot be read; no other number would help.
    """
    try:
        with Folder(room, above) as parent:
            if not parent.exists(folder):
                return False
    except FileNotFoundError:
        return False
    try:
        with Folder(room, (*above, folder)):
            return False
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:
            return True
        raise
