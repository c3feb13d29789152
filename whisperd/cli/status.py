"""`whisperd status`: read off the disk, so that it is true with or without a running daemon."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from whisperd import config
from whisperd.errors import EXIT_OK, SpoolError
from whisperd.intake.ignore import Ignore
from whisperd.intake.scan import scan
from whisperd.job import printable
from whisperd.spool import names, records, sidecar
from whisperd.spool.durable import Folder
from whisperd.spool.layout import Layout
from whisperd.spool.store import NOTES_MAX

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

FAILED_SHOWN = 10
NOTES_READ = 1000  # of a hundred thousand waiting files nobody reads every reason


def main(arguments: argparse.Namespace) -> int:
    """Show the spool."""
    settings = config.load(arguments.config, root=arguments.root)
    try:
        report = gather(Layout(settings.root), Ignore(settings.intake.ignore))
    except OSError as error:
        raise SpoolError(
            f"cannot read {error.filename}: {error.strerror}", hint="is this the right root, and may you read it?"
        ) from error
    if arguments.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _show(report)
    return EXIT_OK


def gather(layout: Layout, ignore: Ignore) -> dict[str, Any]:
    """Everything there is to know.

    Raises:
        OSError: the spool cannot be read.
    """
    jobs = [_job(layout, job_id) for job_id in sorted(os.listdir(layout.work)) if not job_id.startswith(".")]
    failed = [_explained(layout, name) for name in _files(layout.failed)]
    return {
        "root": str(layout.root),
        "daemon_running": layout.is_locked(),
        "inbox": [
            {
                "name": printable(found.name),
                "size_bytes": found.signature and found.signature.size,
                "reason": found.refusal or (_note(layout, found.name) if number < NOTES_READ else None),
            }
            for number, found in enumerate(sorted(scan(layout.inbox, ignore), key=lambda found: found.name))
        ],
        "jobs": sorted(
            (job for job in jobs if job),
            key=lambda job: (job["status"] != "in_progress", job.get("queue_position") or 0),
        ),
        "done": sum(1 for _ in _files(layout.done)),
        "failed": failed,
    }


def _job(layout: Layout, job_id: str) -> dict[str, Any] | None:
    with contextlib.suppress(OSError), Folder(layout.work, (job_id,)) as own:
        job = records.load_job(own)
        if job is not None:
            return _sidecar(layout, job.place) or {
                "id": job.id,
                "name": printable(job.name),
                "status": "pending",
                "phase": "queued",
            }
    return None


def _note(layout: Layout, name: str) -> str | None:
    """Why the daemon, when it last looked, did not take a file; where an earlier upload has its name, under a number."""
    folders, file = names.split(name)
    for number in range(1, NOTES_MAX + 1):
        document = _sidecar(layout, names.join(folders, names.numbered(file, number)))
        if document is None:
            return None
        if document["id"] is None and document.get("source") == printable(f"inbox/{name}"):
            return str(document.get("reason"))
    return None


def _explained(layout: Layout, name: str) -> dict[str, Any]:
    document = _sidecar(layout, name)
    error = (document or {}).get("error") or {}
    return {
        "name": printable(name),
        "code": error.get("code"),
        "message": error.get("message"),
        "hint": error.get("hint"),
    }


def _sidecar(layout: Layout, place: str) -> dict[str, Any] | None:
    folders, file = names.split(place)
    with contextlib.suppress(OSError), Folder(layout.outbox, folders) as outbox:
        return sidecar.decode(outbox.read(names.sidecar(file)))
    return None


def _files(top: Path) -> list[str]:
    found = []
    for folder, _, files in os.walk(top):
        relative = os.path.relpath(folder, top)
        found += [file if relative == "." else f"{relative}/{file}" for file in files]
    return sorted(found)


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False)
    running = [job for job in report["jobs"] if job["status"] == "in_progress"]
    waiting = [job for job in report["jobs"] if job["status"] != "in_progress"]
    state = "running" if report["daemon_running"] else "not running"
    console.print(
        Text(
            f"whisperd is {state} in {report['root']}: {len(running)} in progress, {len(waiting)} queued, "
            f"{len(report['inbox'])} in the inbox, {report['done']} done, {len(report['failed'])} failed"
        )
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("NAME", "STATE", "PROGRESS", "SPEED", "LEFT", "NOTE"):
        table.add_column(title, overflow="fold")
    for job in (*running, *waiting):
        speed = f"x{job['speed']:.1f}" if job.get("speed") else ""
        left = f"{job['eta_seconds']:.0f} s" if job.get("eta_seconds") is not None else ""
        position = f"{job['queue_position']}. in the queue" if job.get("queue_position") else ""
        note = job.get("reason") or position
        table.add_row(*map(Text, (job["name"], job["phase"], f"{job.get('progress') or 0:.0f} %", speed, left, note)))
    for upload in report["inbox"]:
        table.add_row(*map(Text, (upload["name"], "in the inbox", "", "", "", upload["reason"] or "")))
    for failure in report["failed"][:FAILED_SHOWN]:
        note = " ".join(filter(None, (failure["message"], f"({failure['hint']})" if failure["hint"] else "")))
        table.add_row(*map(Text, (failure["name"], "failed", "", "", "", note)))
    if table.row_count:
        console.print(table)
    if len(report["failed"]) > FAILED_SHOWN:
        console.print(f"... and {len(report['failed']) - FAILED_SHOWN} more failed files")
