"""Renders the state of a spool for a terminal: as a table, or as a list if the terminal is narrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from whisperd.core.display import clock, readable_size

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDE = 80  # columns; a list is easier to read below
BAR = 16
SHOWN = {"in_progress": 50, "queued": 20, "inbox": 20, "failed": 10}


class Line(NamedTuple):
    """One entry of the table or list."""

    name: str
    state: Text
    note: Text
    bar: RenderableType = ""
    speed: str = ""
    left: str = ""


def render(report: dict[str, Any], *, width: int, height: int | None = None) -> Group:
    """Render a report; if `height` is given in lines, only as much as fits."""
    shown = SHOWN if height is None else {part: max(1, min(limit, height // 4)) for part, limit in SHOWN.items()}
    running = [job for job in report["jobs"] if job["status"] == "in_progress"]
    queued = [job for job in report["jobs"] if job["status"] != "in_progress"]
    parts = {"in_progress": running, "queued": queued, "inbox": report["inbox"], "failed": report["failed"]}
    more = [f"{len(all_) - shown[part]} {WORDS[part]}" for part, all_ in parts.items() if len(all_) > shown[part]]
    rows = [row(each, report) for part, row in ROWS.items() for each in parts[part][: shown[part]]]
    body: list[RenderableType] = [*_head(report, running, queued)]
    if rows:
        body += [_table(rows)] if width >= WIDE else _list(rows)
    if more:
        body.append(Text(f"... and {', '.join(more)}", style="dim"))
    return Group(*body)


def _head(report: dict[str, Any], running: list[Any], queued: list[Any]) -> Iterator[Text]:
    state = {True: "running", False: "not running", None: "running or not (this user may not see it)"}
    color = {True: "bold green", False: "bold red", None: "bold"}
    version = f" {report['daemon_version']}" if report["daemon_version"] else ""
    yield Text.assemble(
        f"whisperd{version} is ",
        (state[report["daemon_running"]], color[report["daemon_running"]]),
        f" in {report['root']}: {len(running)} in progress, {len(queued)} queued, "
        f"{len(report['inbox'])} in the inbox, {report['done']} done, {len(report['failed'])} failed",
    )
    disk = report["disk"]
    room = f"{readable_size(disk['free_bytes'])} of {readable_size(disk['total_bytes'])} free"
    if disk["free_bytes"] < disk["wanted_bytes"]:
        yield Text(f"{room}, {readable_size(disk['wanted_bytes'])} wanted: nothing is claimed", style="bold red")
    else:
        yield Text(room, style="dim")


def _running(job: dict[str, Any], report: dict[str, Any]) -> Line:
    bar = Table.grid(padding=(0, 1))
    percent = min(100.0, max(0.0, job["progress"] or 0.0))
    bar.add_row(ProgressBar(total=100.0, completed=percent, width=BAR), f"{percent:3.0f} %")
    speed = f"x{job['speed']:.1f}" if job["speed"] else ""
    left = clock(round(max(0.0, job["eta_seconds"]))) if job["eta_seconds"] is not None else ""
    note = job["reason"] or ("" if report["daemon_running"] is not False else "continues at the next start")
    return Line(_name(job), Text(job["phase"] or "", style="cyan"), Text(note), bar, speed, left)


def _queued(job: dict[str, Any], _: dict[str, Any]) -> Line:
    position = f"{job['queue_position']:.0f}. in the queue" if job["queue_position"] else ""
    return Line(_name(job), Text(job["phase"] or ""), Text(job["reason"] or position))


def _upload(upload: dict[str, Any], _: dict[str, Any]) -> Line:
    return Line(upload["name"], Text("in the inbox", style="yellow"), Text(upload["reason"] or ""))


def _failed(failure: dict[str, Any], _: dict[str, Any]) -> Line:
    note = Text(failure["message"] or "its status file is missing")
    if failure["hint"]:
        note.append(f"\n-> {failure['hint']}", style="dim")
    return Line(failure["name"], Text("failed", style="red"), note)


ROWS = {"in_progress": _running, "queued": _queued, "inbox": _upload, "failed": _failed}
WORDS = {
    "in_progress": "more in progress",
    "queued": "more queued",
    "inbox": "more in the inbox",
    "failed": "more failed",
}


def _name(job: dict[str, Any]) -> str:
    """The name of a job for commands, with the number that its status file may have."""
    return str(job["status_file"]).removeprefix("outbox/").removesuffix(".status.json")


def _table(rows: list[Line]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("NAME", overflow="fold", ratio=2)
    for title in ("STATE", "PROGRESS", "SPEED", "LEFT"):
        table.add_column(title, no_wrap=True)
    table.add_column("NOTE", overflow="fold", ratio=3)
    for row in rows:
        table.add_row(Text(row.name), row.state, row.bar, Text(row.speed), Text(row.left), row.note)
    return table


def _list(rows: list[Line]) -> Iterator[RenderableType]:
    for row in rows:
        yield Text(row.name, style="bold", overflow="fold")
        left = f"{row.left} left" if row.left else ""
        facts = Text(" ").join(filter(None, (row.state, Text(row.speed), Text(left))))
        yield from (Padding(each, (0, 0, 0, 2)) for each in (row.bar, facts, row.note) if each)
