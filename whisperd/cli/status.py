"""`whisperd status [NAME]`: shows what runs, waits, is done and has failed, or one upload whole; `--watch` shows it live.

The state is collected from the disk and needs no running daemon. `gather` and `describe` return what `--json` prints;
status-file.md describes it, and a test compares the two. People can write into the folder of the status files, so that their
values are checked and
escaped for the terminal.
"""

from __future__ import annotations

import heapq
import json
import os
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

from whisperd.cli import add_spool_arguments, lookup
from whisperd.core.display import printable
from whisperd.core.errors import EXIT_OK, InputError, SpoolError
from whisperd.core.job import UNDER_WAY, Status
from whisperd.intake.ignore import Ignore
from whisperd.intake.scan import scan
from whisperd.intake.ticket import is_folder_ticket
from whisperd.listeners import device_report
from whisperd.settings import config
from whisperd.settings.sections import SETTABLE
from whisperd.spool import names, status_file
from whisperd.spool.layout import Layout
from whisperd.spool.status_file import EXPLAINED_MAX

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from whisperd.cli.config import Setting, Sources

WATCH_SECONDS = 1.0
GATHER_SHARE = 0.2  # of the time is spent on reading the disk, at most: a spool may have a hundred thousand files
SCHEMA = 1
COMPLETED_MAX = 10
PIPE_COLUMNS = 100_000  # for a reader that is no terminal
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
TEXTS = (
    "phase", "language", "model", "engine", "device", "duplicate_of",
    "created_at", "claimed_at", "started_at", "finished_at", "updated_at",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `status`."""
    add_spool_arguments(parser)
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="one upload, as under inbox/, with or without its folder, or the id of a job",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--watch", action="store_true", help="keep showing it until Ctrl-C")


def main(arguments: argparse.Namespace) -> int:
    """Show the spool once, or until Ctrl-C."""
    settings = config.load(arguments.config, root=arguments.root)
    layout, ignore = Layout(settings.root), Ignore(settings.intake.ignore)

    def report() -> dict[str, Any]:
        try:
            if arguments.name is not None:
                from whisperd.cli.config import Sources  # noqa: PLC0415  # a command, which only this needs

                return describe(Sources(arguments.config, arguments.root), layout, ignore, arguments.name)
            return gather(layout, ignore, wanted_bytes=settings.intake.min_free)
        except OSError as error:
            hint = "check that this is the root of a spool and that you may read it"
            raise SpoolError(f"cannot read {error.filename}: {error.strerror}", hint=hint) from error

    show = _json if arguments.json else _screen
    if not arguments.watch:
        show(report(), None)
        return EXIT_OK
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the terminal is restored before the end
    try:
        _watch(report, show)
    except KeyboardInterrupt:
        return EXIT_OK
    raise AssertionError


def gather(layout: Layout, ignore: Ignore, *, wanted_bytes: int) -> dict[str, Any]:
    """Collect daemon, disk, jobs, waiting uploads and failures of a spool.

    Raises:
        OSError: the spool cannot be read.
    """
    disk = shutil.disk_usage(layout.root)
    inbox = (found for found in scan(layout.inbox, ignore) if found and not is_folder_ticket(found.name))
    found = sorted(inbox, key=lambda found: found.name)
    failed = [_failed(layout, name) for name in lookup.originals(layout.failed)]
    done = lookup.originals(layout.done)
    running, version = _daemon(layout)
    return {
        "schema": SCHEMA,
        "root": printable(str(layout.root)),
        "daemon_running": running,
        "daemon_version": version,
        "devices": [] if running is False else device_report.read(layout),
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
        "done": len(done),
        "completed": _completed(layout, done),
        "failed": sorted(failed, key=lambda failure: failure["finished_at"] or "", reverse=True),
    }


def describe(sources: Sources, layout: Layout, ignore: Ignore, given: str) -> dict[str, Any]:
    """Collect all that is known about one upload.

    Raises:
        SpoolError: there is none of this name, or there are several.
        OSError: the spool cannot be read.
    """
    entry = lookup.find(layout, ignore, given)
    document = entry.document(layout) or {}
    state, job = lookup.state_of(entry, document), entry.job
    name = (job and printable(job.name)) or lookup.text(document, "name") or printable(entry.place)
    job_id = job.id if job else lookup.text(document, "id")
    path = f".work/{job_id}" if entry.job or (entry.room == "outbox" and state in {"queued", "running"}) else entry.path
    outputs = document.get("outputs")
    outputs = outputs if isinstance(outputs, dict) else {}
    error = lookup.error_of(document)
    options: list[Setting] = []
    try:
        options = list(_options(sources, entry, document))
    except InputError as bad:
        error = {"code": bad.job_code, "message": bad.message, "hint": bad.hint}
    return {
        "schema": SCHEMA,
        "name": name,
        "state": state,
        "reason": lookup.text(document, "reason") or entry.refusal or _why(layout, state, document),
        "path": None if path.startswith("outbox/") else printable(path),
        "status_file": printable(f"outbox/{lookup.status_path(entry.place)}") if document else None,
        **{key: lookup.text(document, key) for key in TEXTS},
        **{key: lookup.number(document, key) for key in JOB_NUMBERS},
        "id": job_id,
        "size_bytes": job.signature.size if job else entry.size_bytes or lookup.number(document, "size_bytes"),
        "options": [
            {"key": printable(each.key), "value": each.value, "origin": printable(each.origin)} for each in options
        ],
        "failed_attempts": list(_failed_attempts(document)),
        "error": error if error["message"] else None,
        "outputs": {printable(kind): lookup.text(outputs, kind) for kind in outputs},
    }


def _options(sources: Sources, entry: lookup.Located, document: dict[str, Any]) -> Iterator[Setting]:
    """What profiles and tickets set for an upload, as recorded when it was claimed; before that also what the file sets."""
    from whisperd.cli.config import DEFAULT, Setting, tickets_of  # noqa: PLC0415

    if entry.room == "inbox":
        settings = sources.of_upload(entry.place, tickets_of(sources.settings, entry.place))
        yield from (each for each in settings if each.origin != DEFAULT)
        return
    spec = entry.job.spec if entry.job else None
    changes, origins = (spec.changes, spec.origins) if spec else (document.get("options"), document.get("origins"))
    for key, value in changes.items() if isinstance(changes, dict) else ():
        section, field = SETTABLE.get(key, ("", key))
        origin = origins.get(key) if isinstance(origins, dict) else None
        yield Setting(f"{section}.{field}" if section else field, value, str(origin or "profile or ticket"))


def _failed_attempts(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    found = document.get("failed_attempts")
    for attempt in found if isinstance(found, list) else ():
        if isinstance(attempt, dict):
            texts = {key: lookup.text(attempt, key) for key in ("at", "code", "message", "hint")}
            yield texts | {"counted": attempt.get("counted") is True}


def _why(layout: Layout, state: str, document: dict[str, Any]) -> str | None:
    """Why an upload waits that has no reason in its status file."""
    if state not in {"waiting", "queued", "running"}:
        return None
    if _daemon(layout)[0] is False:
        return "no whisperd is running in this spool; the next start continues"
    if state == "waiting":
        return "whisperd has just seen it, or looks at it next"
    position = lookup.number(document, "queue_position")
    return f"{position:.0f}. in the queue" if state == "queued" and position else None


def _completed(layout: Layout, done: list[str]) -> list[dict[str, Any]]:
    """The last completed jobs, the newest first, by the times of their status files: there may be a hundred thousand."""

    def written_at(place: str) -> float:
        try:
            return os.lstat(layout.outbox / lookup.status_path(place)).st_mtime
        except OSError:
            return 0.0

    found = []
    for place in heapq.nlargest(COMPLETED_MAX, done, key=written_at):
        document = lookup.Located("done", place).document(layout) or {}
        texts = {key: lookup.text(document, key) for key in ("language", "finished_at")}
        numbers = {key: lookup.number(document, key) for key in ("duration_seconds", "speed")}
        found.append({"name": printable(place), **texts, **numbers})
    return sorted(found, key=lambda each: each["finished_at"] or "", reverse=True)


def _json(report: dict[str, Any], _: Console | None) -> None:
    print(json.dumps(report), flush=True)


def _screen(report: dict[str, Any], console: Console | None) -> None:
    from rich.console import Console  # noqa: PLC0415  # scripts want --json, and quickly

    from whisperd.cli.screen import render  # noqa: PLC0415

    console = console or Console(highlight=False)
    if console.is_terminal:
        console.print(render(report, width=console.width))
        return
    wide = Console(highlight=False, file=console.file, width=PIPE_COLUMNS)  # in a pipe no name is broken ...
    with wide.capture() as capture:
        wide.print(render(report, width=PIPE_COLUMNS))
    console.file.write(
        "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
    )  # ... and no line filled up


def _watch(report: Callable[[], dict[str, Any]], show: Callable[[dict[str, Any], Console | None], None]) -> None:
    """Show every change until Ctrl-C: on the alternate screen of a terminal, in a pipe each state once."""
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    from whisperd.cli.screen import render  # noqa: PLC0415

    console = Console(highlight=False)
    if show is _json or not console.is_terminal or console.is_dumb_terminal:
        last = None
        while True:
            pause, now = _timed(report)
            if now != last:
                last = now
                show(now, console)
                console.file.flush()
            time.sleep(pause)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            pause, now = _timed(report)
            live.update(render(now, width=console.width, height=console.height), refresh=True)
            time.sleep(pause)


def _timed(report: Callable[[], dict[str, Any]]) -> tuple[float, dict[str, Any]]:
    started = time.monotonic()
    now = report()
    return max(WATCH_SECONDS, (time.monotonic() - started) / GATHER_SHARE), now


def _daemon(layout: Layout) -> tuple[bool | None, str | None]:
    """Whether a daemon runs and its version; None where this user may not look."""
    try:
        is_running = layout.is_locked()
        return is_running, layout.owner_version() if is_running else None
    except PermissionError:
        return None, None


def _jobs(layout: Layout) -> Iterator[dict[str, Any]]:
    try:
        for job in lookup.jobs(layout):
            blank = {"id": job.id, "name": printable(job.name), "status": Status.PENDING, "phase": "queued"}
            yield _job(lookup.read(layout, job.place) or blank, job.place)
    except PermissionError:  # .work is private: other users see what the status files say
        for folders, file in filter(None, status_file.find_all(layout)):
            place = names.join(folders, file.removesuffix(names.STATUS_SUFFIX))
            document = lookup.read(layout, place)
            if document and document["id"] and document["status"] in UNDER_WAY:
                yield _job(document, place)


def _job(document: dict[str, Any], place: str) -> dict[str, Any]:
    job: dict[str, Any] = {key: lookup.text(document, key) for key in JOB_TEXTS}
    job |= {key: lookup.number(document, key) for key in JOB_NUMBERS}
    return job | {"id": job["id"] or "", "status_file": printable(f"outbox/{lookup.status_path(place)}")}


def _reason_of(layout: Layout, name: str) -> str | None:
    """The reason why the daemon did not claim a file, from its status file, whose name may have a number."""
    folders, file = names.split(name)
    for number in range(1, EXPLAINED_MAX + 1):
        document = lookup.read(layout, names.join(folders, names.numbered(file, number)))
        if document is None:
            return None
        if document["id"] is None and document.get("source") == printable(f"inbox/{name}"):
            return lookup.text(document, "reason")
    return None


def _failed(layout: Layout, name: str) -> dict[str, Any]:
    document = lookup.read(layout, name) or {}
    return {"name": printable(name), **lookup.error_of(document), "finished_at": lookup.text(document, "finished_at")}
