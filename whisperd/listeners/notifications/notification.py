"""Notifications about the end of jobs, and the files of those that are not delivered.

There is one file for each job and channel. It is written before the original leaves `.work` and removed after delivery.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whisperd.core.display import one_line
from whisperd.core.job import Result
from whisperd.spool import names
from whisperd.spool.durable import Folder, write

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from whisperd.core.job import Failure, Job
    from whisperd.spool.layout import Layout

DIRECTORY = ".notices"  # in `.work`; earlier releases have left files there
SUFFIX = ".json"
MAIL_TRANSCRIPT_TO = "WHISPERD_MAIL_TRANSCRIPT_TO"  # addresses, with a space between two
GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR}  # reading it again would find the same


@dataclass(frozen=True, slots=True)
class Notification:
    """A notification about the end of one job.

    Attributes:
        name: the upload's, printable.
        at: when it was written, in seconds since 1970.
        words: environment variables.
        paths: environment variables that are paths, relative to the root of the spool.
        status: the content of the final status file.
    """

    name: str
    at: float
    words: dict[str, str]
    paths: dict[str, str]
    status: dict[str, Any]

    @classmethod
    def of(cls, job: Job, status: dict[str, Any], outcome: Result | Failure, *, at: float) -> Self:
        """Return what is told of a job's end; paths are as they are on disk, the status file shows them escaped."""
        folders, file = names.split(job.place)
        words = {"WHISPERD_EVENT": str(status["status"]), "WHISPERD_ID": job.id, "WHISPERD_NAME": job.name}
        paths = {
            "WHISPERD_ORIGINAL": f"{'done' if isinstance(outcome, Result) else 'failed'}/{job.place}",
            "WHISPERD_STATUS_FILE": "outbox/" + names.join(folders, names.status_file(file)),
        }
        if isinstance(outcome, Result):
            folders, file = names.split(outcome.duplicate_of or job.place)
            if job.spec is not None and job.spec.output.mail_transcript_to:
                words[MAIL_TRANSCRIPT_TO] = " ".join(job.spec.output.mail_transcript_to)
            for kind in outcome.outputs:
                paths[f"WHISPERD_OUTPUT_{kind.upper()}"] = "outbox/" + names.join(folders, names.output(file, kind))
        else:
            words["WHISPERD_ERROR"] = outcome.code
        return cls(status["name"], at, words, paths, status)

    def encode(self) -> bytes:
        """Return the content of its file: ASCII, so that names that are not UTF-8 survive as surrogate escapes."""
        values = {"name": self.name, "at": self.at, "words": self.words, "paths": self.paths, "sidecar": self.status}
        return json.dumps(values).encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """Read the content of its file; None if that is damaged."""
        try:
            values = json.loads(data)
            found = cls(values["name"], values["at"], values["words"], values["paths"], values["sidecar"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        texts = (found.words, found.paths)
        is_sound = (
            isinstance(found.name, str)
            and isinstance(found.at, int | float)
            and isinstance(found.status, dict)
            and all(isinstance(each, dict) and all(isinstance(text, str) for text in each.values()) for each in texts)
        )
        return found if is_sound else None


def summary(document: dict[str, Any]) -> tuple[str, str]:
    """Return what a final status file says to a person: one line, and a text of several."""
    error = document["error"]
    title = one_line(f"{document['name']}: {document['status']}" + (f", {error['message']}" if error else ""))
    lines = [f"{document['name']}: {document['status']}", ""]
    if error:
        lines += [f"reason: {error['message']}", f"remedy: {error['hint']}"]
    lines += [f"{kind}: {path}" for kind, path in document["outputs"].items()]
    lines += [f"original: {document['original']}"]
    return title, "\n".join(lines) + "\n"


class Undelivered:
    """The notifications that have not been delivered, in the directory `.work/.notices`, made when it is first needed."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def put(self, job_id: str, channels: Iterable[str], notification: Notification, *, not_for: Iterable[str]) -> None:
        """Write down, durably, which channels to use; replaces what was written about the same job before.

        Raises:
            OSError: no room, or something that is not a folder is in the place of `.notices`.
        """
        channels = tuple(channels)
        if not channels and not self._directory_exists():
            return
        with self._open(create=True) as folder, Folder(self._layout.staging) as staging:
            for channel in not_for:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(_file(job_id, channel), dir_fd=folder.fd)
            for channel in channels:
                write(folder, _file(job_id, channel), notification.encode(), staging=staging)

    def get(self, job_id: str, channel: str) -> Notification | None:
        """Read one; None if it is damaged or gone.

        Raises:
            OSError: it cannot be read now.
        """
        try:
            with self._open() as folder:
                return Notification.decode(folder.read(_file(job_id, channel)))
        except OSError as error:
            if error.errno in GONE:
                return None
            raise

    def drop(self, job_id: str, channel: str) -> None:
        """Remove a notification that was delivered, or never will be."""
        with contextlib.suppress(OSError), self._open() as folder:
            os.unlink(_file(job_id, channel), dir_fd=folder.fd)

    def list(self) -> list[tuple[str, str]]:
        """Return job id and channel of each, oldest claim first, except for jobs that have not reached their end.

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
                reason = "this is not a folder; move it away, and notifications continue"
            raise OSError(error.errno, reason, str(self._layout.work / DIRECTORY)) from error

    def _directory_exists(self) -> bool:
        return os.path.isdir(self._layout.work / DIRECTORY)  # unlike Path.is_dir, False where the disk cannot read it


def _file(job_id: str, channel: str) -> str:
    return f"{job_id}.{channel}{SUFFIX}"
