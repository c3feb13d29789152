"""Renders the state of a spool for a terminal: as a table, or as a list if the terminal is narrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from whisperd.cli.config import Setting
from whisperd.core.display import clock, readable_size

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDE = 80  # columns; a list is easier to read below
BAR = 16
SHOWN = {"in_progress": 50, "queued": 20, "inbox": 20, "completed": 10, "failed": 10}
CANCELLED = Text("cancelled", style="magenta")
STATES = {
    "waiting": Text("in the inbox", style="yellow"),
    "queued": Text("queued"),
    "running": Text("running", style="cyan"),
    "completed": Text("completed", style="green"),
    "failed": Text("failed", style="red"),
    "cancelled": CANCELLED,
}


class Line(NamedTuple):
    """One entry of the table or list."""

    name: str
    state: Text
    note: Text
    bar: RenderableType = ""
    speed: str = ""
    left: str = ""


def render(report: dict[str, Any], *, width: int, height: int | None = None) -> Group:
    """Render a report of the spool or of one upload; if `height` is given in lines, only as much of the spool as fits."""
    if "state" in report:
        return Group(*_one(report))
    shown = SHOWN if height is None else {part: max(1, min(limit, height // 4)) for part, limit in SHOWN.items()}
    running = [job for job in report["jobs"] if job["status"] == "in_progress"]
    queued = [job for job in report["jobs"] if job["status"] != "in_progress"]
    parts = {"in_progress": running, "queued": queued} | {
        part: report[part] for part in ("inbox", "completed", "failed")
    }
    totals = {part: len(all_) for part, all_ in parts.items()} | {"completed": report["done"]}
    more = [f"{total - shown[part]} {WORDS[part]}" for part, total in totals.items() if total > shown[part]]
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
    cancelled = sum(each["code"] == "cancelled" for each in report["failed"])
    ends = f"{report['done']} done, {len(report['failed']) - cancelled} failed" + (
        f", {cancelled} cancelled" if cancelled else ""
    )
    yield Text.assemble(
        f"whisperd{version} is ",
        (state[report["daemon_running"]], color[report["daemon_running"]]),
        f" in {report['root']}: {len(running)} in progress, {len(queued)} queued, "
        f"{len(report['inbox'])} in the inbox, {ends}",
    )
    yield from _devices(report["devices"])
    disk = report["disk"]
    room = f"{readable_size(disk['free_bytes'])} of {readable_size(disk['total_bytes'])} free"
    if disk["free_bytes"] < disk["wanted_bytes"]:
        yield Text(f"{room}, {readable_size(disk['wanted_bytes'])} wanted: nothing is claimed", style="bold red")
    else:
        yield Text(room, style="dim")


def _devices(devices: list[dict[str, Any]]) -> Iterator[Text]:
    """One line for the devices at work, if there are several, and one for each that is out of service."""
    works = [
        each["name"] + (f" x{each['speed']:.1f}" if each["speed"] else "") for each in devices if not each["reason"]
    ]
    if len(devices) > 1 and works:
        yield Text(f"devices: {', '.join(works)}", style="dim")
    for each in devices:
        if each["reason"]:
            again = f"; it is tried again at {each['retry_at']}" if each["retry_at"] else "; it is being tried"
            yield Text(f"device {each['name']} is out of service: {each['reason']}{again}", style="bold red")


def _running(job: dict[str, Any], report: dict[str, Any]) -> Line:
    bar = Table.grid(padding=(0, 1))
    percent = min(100.0, max(0.0, job["progress"] or 0.0))
    bar.add_row(ProgressBar(total=100.0, completed=percent, width=BAR), f"{percent:3.0f} %")
    left = clock(round(max(0.0, job["eta_seconds"]))) if job["eta_seconds"] is not None else ""
    note = job["reason"] or ("" if report["daemon_running"] is not False else "continues at the next start")
    return Line(_name(job), Text(job["phase"] or "", style="cyan"), Text(note), bar, _speed(job), left)


def _queued(job: dict[str, Any], _: dict[str, Any]) -> Line:
    position = f"{job['queue_position']:.0f}. in the queue" if job["queue_position"] else ""
    return Line(_name(job), Text(job["phase"] or ""), Text(job["reason"] or position))


def _upload(upload: dict[str, Any], _: dict[str, Any]) -> Line:
    return Line(upload["name"], STATES["waiting"], Text(upload["reason"] or ""))


def _completed(job: dict[str, Any], _: dict[str, Any]) -> Line:
    length = f"{clock(job['duration_seconds'])} of audio" if job["duration_seconds"] else ""
    facts = filter(None, (_time(job["finished_at"]), length, job["language"]))
    return Line(job["name"], STATES["completed"], Text(", ".join(facts)), "", _speed(job))


def _failed(failure: dict[str, Any], _: dict[str, Any]) -> Line:
    if failure["code"] == "cancelled":
        return Line(failure["name"], CANCELLED, Text(_time(failure["finished_at"])))
    note = Text(failure["message"] or "its status file is missing")
    if failure["hint"]:
        note.append(f"\n-> {failure['hint']}", style="dim")
    return Line(failure["name"], STATES["failed"], note)


ROWS = {"in_progress": _running, "queued": _queued, "inbox": _upload, "completed": _completed, "failed": _failed}
WORDS = {
    "in_progress": "more in progress",
    "queued": "more queued",
    "inbox": "more in the inbox",
    "completed": "more done",
    "failed": "more failed or cancelled",
}


def _one(report: dict[str, Any]) -> Iterator[RenderableType]:
    """All that is known about one upload: its state, then each fact on a line of its own."""
    yield Text.assemble((report["name"], "bold"), ": ", STATES[report["state"]])
    if report["state"] == "running":
        line = _running(report | {"status_file": ""}, {"daemon_running": True})
        left = f"{line.left} left" if line.left else ""
        yield Padding(line.bar, (0, 0, 0, 2))
        yield Text("  ") + Text(" ").join(filter(None, (line.state, Text(line.speed), Text(left))))
    size = readable_size(report["size_bytes"]) if report["size_bytes"] else ""
    length = f"{clock(report['duration_seconds'])} of audio" if report["duration_seconds"] else ""
    by = ", ".join(filter(None, (report["engine"], report["model"], report["device"])))
    error = report["error"] or {"code": None, "message": None, "hint": None}
    facts = {
        "why": report["reason"],
        "error": f"{error['message']} ({error['code']})" if error["message"] else None,
        "what to do": error["hint"],
        "recording": ", ".join(filter(None, (size, length, report["language"]))),
        "original": report["path"] or "was removed",
        "same as": report["duplicate_of"],
        "job": report["id"],
        "status file": report["status_file"],
        "transcribed by": by,
        "first seen": _time(report["created_at"]),
        "claimed": _time(report["claimed_at"]),
        "first attempt": _time(report["started_at"]),
        "ended": _time(report["finished_at"]),
        "attempts": f"{report['attempts']:.0f}" if report["attempts"] else None,
    }
    table = Table.grid(padding=(0, 2))
    for title, fact in facts.items():
        if fact:
            table.add_row(Text(title, style="dim"), Text(fact, overflow="fold"))
    yield Padding(table, (0, 0, 0, 2), expand=False)
    yield from _lists(report)


def _lists(report: dict[str, Any]) -> Iterator[RenderableType]:
    """The attempts that failed, the options and the transcripts of one upload."""
    attempts = []
    for each in report["failed_attempts"]:
        counted = "" if each["counted"] else ", which does not count"
        hint = f" -> {each['hint']}" if each["hint"] else ""
        attempts.append(f"{_time(each['at'])}: {each['message']} ({each['code']}){counted}{hint}")
    options = [str(Setting(each["key"], each["value"], each["origin"])) for each in report["options"]]
    outputs = [path for path in report["outputs"].values() if path]
    for title, lines in (("attempts that failed", attempts), ("options", options), ("transcripts", outputs)):
        if lines:
            yield Text(f"  {title}", style="dim")
            yield from (Padding(Text(line, overflow="fold"), (0, 0, 0, 4), expand=False) for line in lines)


def _time(at: str | None) -> str:
    """A time of a status file for people: `2026-01-02 03:04:05 UTC`."""
    return f"{at[:19].replace('T', ' ')} UTC" if at else ""


def _speed(job: dict[str, Any]) -> str:
    return f"x{job['speed']:.1f}" if job["speed"] else ""


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
