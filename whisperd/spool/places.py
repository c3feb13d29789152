"""Which names a job's files get: one suffix for the whole job, and nothing that exists is ever touched."""

from __future__ import annotations

import contextlib
import errno
import itertools
from typing import TYPE_CHECKING

from whisperd.job import Status
from whisperd.spool import names, sidecar
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from pathlib import Path

    from whisperd.spool.layout import Layout


class Places:
    """Hands out places and remembers those of the jobs under way."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._held: dict[str, frozenset[str]] = {}  # job id -> every path it may write

    def hold(self, job_id: str, place: str, formats: tuple[str, ...]) -> None:
        """Remember that a job writes there."""
        self._held[job_id] = _paths(place, formats)

    def drop(self, job_id: str) -> None:
        """The job has ended; what it wrote now speaks for itself."""
        self._held.pop(job_id, None)

    def choose(self, job_id: str, name: str, formats: tuple[str, ...]) -> str:
        """The first place for `name` where nothing stands and no other job is going, held from now on.

        Raises:
            OSError: a folder cannot be read.
        """
        taken = frozenset().union(*(paths for holder, paths in self._held.items() if holder != job_id))
        folders, file = names.split(name)
        folders = self._free_folders(folders)
        for number in itertools.count(1):
            place = names.join(folders, names.numbered(file, number))
            paths = _paths(place, formats)
            if taken.isdisjoint(paths) and not any(self._occupied(path) for path in paths):
                self._held[job_id] = paths
                return place
        raise AssertionError

    def _free_folders(self, folders: tuple[str, ...]) -> tuple[str, ...]:
        """The mirrored folders, each renamed where a file or a symlink stands in its way (`alice` -> `alice-2`)."""
        chosen: tuple[str, ...] = ()
        for part in folders:
            for number in itertools.count(1):
                candidate = (*chosen, names.numbered(part, number))
                if not any(
                    _blocked(root, candidate) for root in (self._layout.outbox, self._layout.done, self._layout.failed)
                ):
                    chosen = candidate
                    break
        return chosen

    def _occupied(self, path: str) -> bool:
        room, _, rest = path.partition("/")
        folders, file = names.split(rest)
        try:
            with Folder(self._layout.root / room, folders) as folder:
                if not folder.exists(file):
                    return False
                return not (file.endswith(names.SIDECAR_SUFFIX) and room == "outbox" and self.superseded(folder, file))
        except FileNotFoundError:
            return False

    def superseded(self, folder: Folder, file: str) -> bool:
        """Whether a sidecar speaks of nothing that still exists.

        That is a note on a waiting upload, and the sidecar of a failed job whose original was moved back to be retried.
        """
        try:
            document = sidecar.decode(folder.read(file))
        except OSError:
            return False
        if document is None:
            return False
        if document["status"] == Status.PENDING and document.get("id") is None:
            return True
        original = document.get("original")
        if document["status"] != Status.FAILED or not isinstance(original, str):
            return False
        room, _, rest = original.partition("/")
        folders, name = names.split(rest)
        if room != "failed" or ".." in folders:
            return False
        try:
            with Folder(self._layout.failed, folders) as failed:
                return not failed.exists(name)
        except FileNotFoundError:
            return True
        except OSError:
            return False


def _paths(place: str, formats: tuple[str, ...]) -> frozenset[str]:
    folders, file = names.split(place)
    outputs = [names.output(file, kind) for kind in formats]
    return frozenset(
        {f"outbox/{names.join(folders, output)}" for output in (*outputs, names.sidecar(file))}
        | {f"done/{place}", f"failed/{place}"}
    )


def _blocked(root: Path, parts: tuple[str, ...]) -> bool:
    with contextlib.suppress(FileNotFoundError):
        try:
            with Folder(root, parts[:-1]) as parent:
                if not parent.exists(parts[-1]):
                    return False
            with Folder(root, parts):
                return False
        except OSError as error:
            if error.errno in {errno.ENOTDIR, errno.ELOOP}:
                return True
            raise
    return False
