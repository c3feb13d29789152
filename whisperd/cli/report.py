"""Collects the state of a spool from the disk, for `whisperd status`; it needs no running daemon.

`gather` returns what `whisperd status --json` prints; the README describes it, and a test compares the two. People can write
into the folder of the status files, so that their values are checked and escaped for the terminal.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Any

from whisperd.core.display import printable
from whisperd.core.job import UNDER_WAY, Status
from whisperd.intake.scan import scan
from whisperd.intake.ticket import is_folder_ticket, is_ticket
from whisperd.spool import names, records, status_file
from whisperd.spool.durable import Folder
from whisperd.spool.layout import files
from whisperd.spool.status_file import EXPLAINED_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whisperd.intake.ignore import Ignore
    from whisperd.spool.layout import Layout

SCHEMA = 1
REASONS_READ = 1000  # reading the reasons of a hundred thousand waiting files would take too long
JOB_TEXTS = ("id", "name", "status", "phase", "reason", "started_at")
JOB_NUMBERS = (
    "progress",
    "duration_seconds",
    "processed_seconds",
    "speed",
    "eta_seconds",
    "queue_position",
    "attempts",
)


def gather(layout: Layout, ignore: Ignore, *, wanted_bytes: int) -> dict[str, Any]:
    """Collect daemon, disk, jobs, waiting uploads and failures of a spool.

    Raises:
        OSError: the spool cannot be read.
    """
    disk = shutil.disk_usage(layout.root)
    inbox = (found for found in scan(layout.inbox, ignore) if found and not is_folder_ticket(found.name))
    found = sorted(inbox, key=lambda found: found.name)
    failed = [_explained(layout, name) for name in _files(layout.failed)]
    running, version = _daemon(layout)
    return {
        "schema": SCHEMA,
        "root": printable(str(layout.root)),
        "daemon_running": running,
        "daemon_version": version,
        "disk": {"free_bytes": disk.free, "total_bytes": disk.total, "wanted_bytes": wanted_bytes},
        "jobs": sorted(
            _jobs(layout), key=lambda job: (job["status"] != Status.IN_PROGRESS, job["queue_position"] or 0, job["id"])
        ),
        "inbox": [
            {
                "name": printable(upload.name),
                "size_bytes": upload.signature and upload.signature.size,
                "reason": upload.refusal or (_reason_of(layout, upload.name) if number < REASONS_READ else None),
            }
            for number, upload in enumerate(found)
        ],
        "done": sum(1 for _ in _files(layout.done)),
        "failed": sorted(failed, key=lambda failure: failure["finished_at"] or "", reverse=True),
    }


def _daemon(layout: Layout) -> tuple[bool | None, str | None]:
    """Whether a daemon runs and its version; None where this user may not look."""
    try:
        is_running = layout.is_locked()
        return is_running, layout.owner_version() if is_running else None
    except PermissionError:
        return None, None


def _jobs(layout: Layout) -> Iterator[dict[str, Any]]:
    try:
        directories = sorted(os.listdir(layout.work))
    except PermissionError:  # .work is private: other users see what the status files say
        for folders, file in filter(None, status_file.find_all(layout)):
            document = _read(layout, folders, file)
            if document and document["id"] and document["status"] in UNDER_WAY:
                yield _job(document, names.join(folders, file))
        return
    for job_id in directories:
        with contextlib.suppress(OSError), Folder(layout.work, (job_id,)) as own:
            if (job := records.load_job(own)) is not None:
                folders, file = names.split(job.place)
                blank = {"id": job.id, "name": printable(job.name), "status": Status.PENDING, "phase": "queued"}
                document = _read(layout, folders, names.status_file(file)) or blank
                yield _job(document, names.join(folders, names.status_file(file)))


def _job(document: dict[str, Any], path: str) -> dict[str, Any]:
    job = {key: _text(document, key) for key in JOB_TEXTS} | {key: _number(document, key) for key in JOB_NUMBERS}
    return job | {"id": job["id"] or "", "status_file": printable(f"outbox/{path}")}


def _reason_of(layout: Layout, name: str) -> str | None:
    """The reason why the daemon did not claim a file, from its status file, whose name may have a number."""
    folders, file = names.split(name)
    for number in range(1, EXPLAINED_MAX + 1):
        document = _read(layout, folders, names.status_file(names.numbered(file, number)))
        if document is None:
            return None
        if document["id"] is None and document.get("source") == printable(f"inbox/{name}"):
            return _text(document, "reason")
    return None


def _explained(layout: Layout, name: str) -> dict[str, Any]:
    folders, file = names.split(name)
    document = _read(layout, folders, names.status_file(file)) or {}
    error = document.get("error")
    error = error if isinstance(error, dict) else {}
    why = {key: _text(error, key) for key in ("code", "message", "hint")}
    return {"name": printable(name), **why, "finished_at": _text(document, "finished_at")}


def _read(layout: Layout, folders: tuple[str, ...], file: str) -> dict[str, Any] | None:
    with contextlib.suppress(OSError), Folder(layout.outbox, folders) as outbox:
        return status_file.decode(outbox.read(file))
    return None


def _text(document: dict[str, Any], key: str) -> str | None:
    """A text that is safe for a terminal; names in status files have their backslashes doubled already."""
    value = document.get(key)
    return printable(value).replace("\\\\", "\\") if isinstance(value, str) else None


def _number(document: dict[str, Any], key: str) -> float | None:
    value = document.get(key)
    return value if isinstance(value, int | float) and abs(value) < 1e15 else None  # noqa: PLR2004  # inf has no digits


def _files(top: Path) -> list[str]:
    """The names of all originals in a folder of the spool, without the tickets beside them."""
    os.listdir(top)  # raises if it cannot be read, which must not look like an empty folder
    return sorted(names.join(*found) for found in files(top) if found and not is_ticket(found[1]))
