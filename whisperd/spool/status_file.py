"""Status files: what the JSON beside a transcript says, which one may be written, replaced or removed, and which jobs they find.

A status file explains a job and is never the authority on it. The schema, version 1, is documented in status-file.md; a test
keeps the two alike. One without an id explains why an upload still waits in the inbox; it makes room for its job's. Those of
completed jobs are the only record of them: a caller that remembers one reads it again before it points to the transcripts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from whisperd.core.display import printable
from whisperd.core.job import Job, Phase, Progress, Result, Status, utc_now
from whisperd.core.transcript import KnownVoices
from whisperd.spool import layout, names
from whisperd.spool.durable import NOT_THERE, Folder, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.core.job import Failure

SCHEMA = 1
FIELDS = [
    "schema",
    "id",
    "name",
    "source",
    "status",
    "phase",
    "reason",
    "progress",
    "duration_seconds",
    "processed_seconds",
    "speed",
    "eta_seconds",
    "queue_position",
    "attempts",
    "failed_attempts",
    "profile",
    "tickets",
    "options",
    "origins",
    "model",
    "engine",
    "device",
    "language",
    "language_probability",
    "languages",
    "voices",
    "outputs",
    "digests",
    "corrections",
    "duplicate_of",
    "original",
    "sha256",
    "size_bytes",
    "created_at",
    "claimed_at",
    "started_at",
    "finished_at",
    "updated_at",
    "error",
    "quality",
]
IDENTITY = frozenset({"id", "status", "original"})  # a document without these is not a status file
EXPLAINED_MAX = 20  # earlier uploads of one name beside which a waiting upload is still explained


@dataclass(frozen=True, slots=True)
class CompletedJob:
    """A completed job as its status file describes it."""

    place: str
    size_bytes: int
    result: Result
    options: dict[str, Any]  # what its profiles and tickets set


def of_upload(name: str, size_bytes: int | None, reason: str, *, now: str) -> dict[str, Any]:
    """What is said of an upload that waits in the inbox, with the reason why it was not taken."""
    document: dict[str, Any] = dict.fromkeys(FIELDS)
    document |= {
        "schema": SCHEMA,
        "name": printable(name),
        "source": printable(f"inbox/{name}"),
        "status": Status.PENDING,
        "phase": Phase.UPLOADING,
        "reason": reason,
        "progress": 0.0,
        "size_bytes": size_bytes,
        "attempts": 0,
        "failed_attempts": [],
        "tickets": [],
        "options": {},
        "origins": {},
        "outputs": {},
        "digests": {},
        "corrections": [],
        "updated_at": now,
    }
    return document


def of_job(
    job: Job,
    *,
    now: str,
    progress: Progress | None = None,
    result: Result | None = None,
    failure: Failure | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    """What is said of a claimed job: completed with a `result`, failed with a `failure`, else by its `progress`."""
    progress = progress or Progress()
    ended = result is not None or failure is not None
    status = Status.PENDING if progress.phase is Phase.QUEUED else Status.IN_PROGRESS
    where = None
    if result is not None:
        status, where = Status.COMPLETED, f"done/{job.place}"
    elif failure is not None:
        status, where = Status.FAILED, f"failed/{job.place}"
    document = of_upload(job.name, job.signature.size, "", now=now)
    document |= {
        "id": job.id,
        "status": status,
        "phase": Phase.ENDED if ended else progress.phase,
        "reason": reason,
        "progress": 100.0 if result is not None else progress.percent,
        "duration_seconds": _rounded(progress.duration_seconds),
        "processed_seconds": _rounded(progress.processed_seconds),
        "speed": progress.speed,
        "eta_seconds": None if ended else _rounded(progress.eta_seconds),
        "queue_position": None if ended else progress.queue_position,
        "attempts": job.attempts,
        "failed_attempts": [asdict(attempt) for attempt in job.failed_attempts],
        "original": printable(where) if where else None,
        "created_at": job.created_at,
        "claimed_at": job.claimed_at,
        "started_at": job.started_at,
        "finished_at": now if ended else None,
    }
    if job.spec is not None:
        document |= {
            "profile": printable(job.spec.profile) if job.spec.profile else None,
            "tickets": [printable(ticket) for ticket in job.spec.tickets],
            "options": job.spec.changes,
            "origins": job.spec.origins,
        }
    if result is not None:
        folders, file = names.split(result.duplicate_of or job.place)
        document |= {
            "duration_seconds": _rounded(result.duration_seconds),
            "processed_seconds": _rounded(result.duration_seconds),
            "speed": result.speed,
            "model": result.model,
            "engine": result.engine,
            "device": result.device,
            "language": result.language,
            "language_probability": result.language_probability,
            "languages": [
                {"from": _rounded(start), "to": _rounded(end), "language": code}
                for start, end, code in result.languages
            ],
            "voices": None if result.voices is None else dataclasses.asdict(result.voices),
            "sha256": result.sha256,
            "outputs": {
                kind: printable("outbox/" + names.join(folders, names.output(file, kind))) for kind in result.outputs
            },
            "digests": {kind: digest for kind, digest in result.digests.items() if kind in result.rendered},
            "duplicate_of": printable(result.duplicate_of) if result.duplicate_of else None,
            "quality": result.quality,
        }
    if failure is not None:
        document["error"] = {
            "code": failure.code,
            "message": failure.message,
            "hint": failure.hint,
            "retryable": failure.retryable,
            "stage": failure.stage,
        }
    return document


def encode(document: dict[str, Any]) -> bytes:
    """Write a document as JSON for people and programs: indented, UTF-8, one newline at the end."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def decode(data: bytes) -> dict[str, Any] | None:
    """Read a status file; None where it is not one of ours, since people can write into the outbox."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    is_ours = isinstance(document, dict) and document.get("schema") == SCHEMA and document.keys() >= IDENTITY
    return document if is_ours else None


def find_all(spool: layout.Layout) -> Iterator[tuple[tuple[str, ...], str] | None]:
    """Walk the outbox: the folders and the name of everything that is called like a status file; None for other steps."""
    for found in layout.files(spool.outbox):
        yield found if found and found[1].endswith(names.STATUS_SUFFIX) else None


def find_all_completed(spool: layout.Layout) -> Iterator[CompletedJob | None]:
    """Find every completed job whose transcripts are in the outbox, one step at a time; None for a step without one."""
    for found in find_all(spool):
        if found is None:
            yield None
            continue
        folders, file = found
        yield find_completed(spool, names.join(folders, file.removesuffix(names.STATUS_SUFFIX)))


def find_completed(spool: layout.Layout, place: str) -> CompletedJob | None:
    """Read the completed job of a place; None unless its status file says so and every transcript that it names exists.

    A duplicate is not found, and neither is a name so long that its status file's had to be shortened: its transcripts
    have other names than the status file says.
    """
    folders, file = names.split(place)
    try:
        with Folder(spool.outbox, folders) as outbox:
            document = decode(outbox.read(names.status_file(file)))
            if document is None or document["status"] != Status.COMPLETED or document.get("duplicate_of") is not None:
                return None
            for kind, shown in document["outputs"].items():
                output = names.output(file, kind)
                if shown != printable("outbox/" + names.join(folders, output)) or not outbox.exists(output):
                    return None
            options = dict(document.get("options") or {})
            return CompletedJob(place, int(document["size_bytes"]), _result_again(document, place), options)
    except (OSError, KeyError, TypeError, ValueError, ArithmeticError, AttributeError):
        return None  # a person has edited it, or taken it away


class StatusFiles:
    """Writes and removes the status files of one outbox; a file that belongs to another job or to a person is left alone."""

    def __init__(self, spool: layout.Layout) -> None:
        self._spool = spool

    def write(self, place: str, document: dict[str, Any], *, sync: bool = False) -> None:
        """Write a status file, or replace the one at that place.

        Raises:
            FileExistsError: the one there belongs to another job, or it is no status file.
        """
        folders, file = names.split(place)
        name = names.status_file(file)
        with Folder(self._spool.outbox, folders, create=True) as outbox, Folder(self._spool.staging) as staging:
            exists = outbox.exists(name)
            if exists and not self._may_replace(outbox, place, document):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
            write(outbox, name, encode(document), staging=staging, sync=sync, replace=exists)

    def hide(self, job: Job) -> None:
        """Remove the status file of a job.

        Raises:
            OSError: it cannot be removed, and would be wrong if the job went on.
        """
        try:
            self._remove(job.place, job.id)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise

    def is_superseded(self, place: str) -> bool:
        """Whether the status file of a place is about nothing that still exists, so that a new job may have the place.

        It explained a waiting upload, or a failed job whose original was moved back into the inbox.
        """
        folders, file = names.split(place)
        try:
            with Folder(self._spool.outbox, folders) as outbox:
                document = decode(outbox.read(names.status_file(file)))
            if document is None:
                return False
            if document["id"] is None:
                return bool(document["status"] == Status.PENDING)
            original = f"failed/{place}"
            has_failed = (document["status"], document["original"]) == (Status.FAILED, printable(original))
            return has_failed and not self._spool.has(original)
        except OSError:
            return False

    def explain(self, name: str, size_bytes: int | None, reason: str) -> str | None:
        """Explain why an upload waits in the inbox, until the status file of its job takes that place.

        Where an earlier upload of this name has a status file, the name gets a number, as the job's own will.

        Returns:
            The place, for `unexplain`; None if there is none left.
        """
        document = of_upload(name, size_bytes, reason, now=utc_now())
        folders, file = names.split(name)
        for number in range(1, EXPLAINED_MAX + 1):
            place = names.join(folders, names.numbered(file, number))
            with contextlib.suppress(FileExistsError):
                self.write(place, document)
                return place
        return None

    def unexplain(self, place: str) -> None:
        """Remove the explanation at a place, if the status file there is still one."""
        with contextlib.suppress(OSError):
            self._remove(place, None)

    def explanation_of(self, name: str) -> str | None:
        """Find the place where a waiting upload is explained, whichever daemon wrote that."""
        folders, file = names.split(name)
        with contextlib.suppress(OSError), Folder(self._spool.outbox, folders) as outbox:
            for number in range(1, EXPLAINED_MAX + 1):
                numbered = names.numbered(file, number)
                document = decode(outbox.read(names.status_file(numbered)))
                if document and document["id"] is None and document.get("source") == printable(f"inbox/{name}"):
                    return names.join(folders, numbered)
        return None

    def stale_explanations(self) -> Iterator[str | None]:
        """Find the places that explain uploads which have left the inbox while no daemon ran; None for other steps."""
        for found in find_all(self._spool):
            if found is None:
                yield None
                continue
            folders, file = found
            yield names.join(folders, file.removesuffix(names.STATUS_SUFFIX)) if self._is_stale(folders, file) else None

    def _is_stale(self, folders: tuple[str, ...], file: str) -> bool:
        with contextlib.suppress(OSError), Folder(self._spool.outbox, folders) as outbox:
            document = decode(outbox.read(file))
            if document and document["id"] is None and document["status"] == Status.PENDING:
                return not self._is_waiting(folders, str(document.get("source")).removeprefix("inbox/"))
        return False

    def _is_waiting(self, folders: tuple[str, ...], name: str) -> bool:
        """Whether the inbox has an entry with this printable name."""
        try:
            with Folder(self._spool.inbox, folders) as inbox:
                if "\\" not in name:
                    return inbox.exists(names.split(name)[1])
                return any(printable(names.join(folders, entry)) == name for entry in os.listdir(inbox.fd))
        except FileNotFoundError:
            return False

    def _remove(self, place: str, job_id: str | None) -> None:
        folders, file = names.split(place)
        with Folder(self._spool.outbox, folders) as outbox:
            document = decode(outbox.read(names.status_file(file)))
            if document and document["id"] == job_id:
                os.unlink(names.status_file(file), dir_fd=outbox.fd)

    def _may_replace(self, outbox: Folder, place: str, document: dict[str, Any]) -> bool:
        try:
            old = decode(outbox.read(names.status_file(names.split(place)[1])))
        except OSError:
            return False
        if document["id"] is None:  # an explanation may replace nothing but an older one of the same upload
            return old is not None and old["id"] is None and old.get("source") == document["source"]
        return (old is not None and old["id"] == document["id"]) or self.is_superseded(place)


def _result_again(document: dict[str, Any], place: str) -> Result:
    """The result of a job with the same content: the same transcripts, and no work."""
    voices = document.get("voices")
    return Result(
        duration_seconds=float(document["duration_seconds"]),
        processing_seconds=0.0,
        sha256=str(document["sha256"]),
        language=document["language"],
        language_probability=document["language_probability"],
        engine=document["engine"],
        model=document["model"],
        device=document["device"],
        outputs=tuple(document["outputs"]),
        quality=document["quality"],
        duplicate_of=place,
        languages=tuple((each["from"], each["to"], each["language"]) for each in document.get("languages") or ()),
        voices=None if voices is None else KnownVoices.from_json(voices),
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
