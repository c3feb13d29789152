"""Notices that are still to be delivered, as files: one for each job and channel, removed when it has arrived."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from whisperd.spool.durable import Folder, write

if TYPE_CHECKING:
    from collections.abc import Iterable

    from whisperd.spool.layout import Layout

DIRECTORY = ".notices"
SUFFIX = ".json"
GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR}  # reading it again would find the same


@dataclass(frozen=True, slots=True)
class Notice:
    """One end of one job, as it is told.

    Attributes:
        name: the upload's, printable.
        at: when it was written, in seconds since 1970.
        words: environment variables.
        paths: environment variables that are paths, relative to the root of the spool.
        sidecar: the content of the final status file.
    """

    name: str
    at: float
    words: dict[str, str]
    paths: dict[str, str]
    sidecar: dict[str, Any]


class Queue:
    """The directory `.work/.notices`, made when it is first needed."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def put(self, job_id: str, channels: Iterable[str], notice: Notice, *, not_for: Iterable[str]) -> None:
        """Write down, durably, whom to tell; an earlier word about the same job is replaced.

        Raises:
            OSError: no room, or something that is not a folder lies in the place of `.notices`.
        """
        channels = tuple(channels)
        # ASCII, so that names that are not UTF-8 survive as surrogate escapes
        data = json.dumps(asdict(notice)).encode("ascii")
        if not channels and not self._path_exists():
            return
        with self._open(create=True) as folder, Folder(self._layout.staging) as staging:
            for channel in not_for:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(_file(job_id, channel), dir_fd=folder.fd)
            for channel in channels:
                write(folder, _file(job_id, channel), data, staging=staging)

    def get(self, job_id: str, channel: str) -> Notice | None:
        """Read one; None where it is damaged or gone.

        Raises:
            OSError: it cannot be read now.
        """
        try:
            with self._open() as folder:
                notice = Notice(**json.loads(folder.read(_file(job_id, channel))))
        except (ValueError, TypeError, RecursionError):
            return None
        except OSError as error:
            if error.errno in GONE:
                return None
            raise
        return notice if _is_sound(notice) else None

    def drop(self, job_id: str, channel: str) -> None:
        """It has arrived, or never will."""
        with contextlib.suppress(OSError), self._open() as folder:
            os.unlink(_file(job_id, channel), dir_fd=folder.fd)

    def waiting(self) -> list[tuple[str, str]]:
        """Job id and channel of each, oldest claim first, except for jobs whose end is not yet reached.

        Raises:
            OSError: the folder cannot be read; `strerror` and `filename` say why, and what to do.
        """
        try:
            with self._open() as folder:
                files = sorted(file for file in os.listdir(folder.fd) if file.endswith(SUFFIX))
        except FileNotFoundError:
            return []
        found = [file.removesuffix(SUFFIX).rpartition(".")[::2] for file in files]
        return [(job_id, channel) for job_id, channel in found if not self._layout.job_directory(job_id).exists()]

    def _open(self, *, create: bool = False) -> Folder:
        try:
            return Folder(self._layout.work, (DIRECTORY,), create=create)
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO)
            if error.errno in {errno.ENOTDIR, errno.ELOOP}:
                reason = "this is not a folder; move it away, and notifications go on"
            raise OSError(error.errno, reason, str(self._layout.work / DIRECTORY)) from error

    def _path_exists(self) -> bool:
        return os.path.isdir(self._layout.work / DIRECTORY)  # unlike Path.is_dir, False where the disk cannot read it


def _is_sound(notice: Notice) -> bool:
    texts = (notice.words, notice.paths)
    return (
        isinstance(notice.name, str)
        and isinstance(notice.at, int | float)
        and isinstance(notice.sidecar, dict)
        and all(isinstance(each, dict) and all(isinstance(text, str) for text in each.values()) for each in texts)
    )


def _file(job_id: str, channel: str) -> str:
    return f"{job_id}.{channel}{SUFFIX}"
