"""The status JSON next to a transcript: it explains a job, and is never the authority on it.

Its schema, version 1, is documented in the README; a test holds the two together.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from whisperd.core.display import printable
from whisperd.core.job import Job, Phase, Progress, Status
from whisperd.spool import names

if TYPE_CHECKING:
    from whisperd.core.job import Failure, Result

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
    "profile",
    "tickets",
    "options",
    "model",
    "engine",
    "device",
    "language",
    "language_probability",
    "outputs",
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
IDENTITY = frozenset({"id", "status", "original"})  # without these a document is not taken for a sidecar


def pending_upload(name: str, size_bytes: int | None, reason: str, *, now: str) -> dict[str, Any]:
    """The sidecar of a file that still lies in the inbox, with the reason why it was not taken."""
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
        "tickets": [],
        "options": {},
        "outputs": {},
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
    """The sidecar of a claimed job: completed with a `result`, failed with a `failure`, else by its `progress`."""
    progress = progress or Progress()
    ended = result is not None or failure is not None
    status = Status.PENDING if progress.phase is Phase.QUEUED else Status.IN_PROGRESS
    where = None
    if result is not None:
        status, where = Status.COMPLETED, f"done/{job.place}"
    elif failure is not None:
        status, where = Status.FAILED, f"failed/{job.place}"
    document = pending_upload(job.name, job.signature.size, "", now=now)
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
            "sha256": result.sha256,
            "outputs": {
                kind: printable("outbox/" + names.join(folders, names.output(file, kind))) for kind in result.outputs
            },
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
    """JSON for people and programs: indented, UTF-8, one trailing newline."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def decode(data: bytes) -> dict[str, Any] | None:
    """What a sidecar says; None where it is not one of ours (people can write into the outbox)."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    is_ours = isinstance(document, dict) and document.get("schema") == SCHEMA and document.keys() >= IDENTITY
    return document if is_ours else None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
