"""`whisperd render NAME`: writes the transcripts of completed jobs again, without the model, with names and words put right.

Where a daemon runs, it owns the spool: the command then writes a ticket into the inbox, and waits a while for the daemon to
follow it. Otherwise the command does the work itself.
"""

from __future__ import annotations

import contextlib
import errno
import time
from typing import TYPE_CHECKING

from whisperd.cli import add_spool_arguments
from whisperd.cli.each import each
from whisperd.core.correction import KEY, as_ticket
from whisperd.core.display import printable
from whisperd.core.errors import ConfigError, CorrectionRefused, SpoolLocked
from whisperd.settings import config
from whisperd.settings.correction import parse
from whisperd.spool import names
from whisperd.spool.corrections import Corrections
from whisperd.spool.durable import Folder, write
from whisperd.spool.names import Naming
from whisperd.spool.status_file import StatusFiles

if TYPE_CHECKING:
    import argparse
    from collections.abc import Generator
    from typing import Any

    from whisperd.core.correction import Correction
    from whisperd.settings.config import Config
    from whisperd.spool.corrections import Plan
    from whisperd.spool.layout import Layout

WAIT_SECONDS = 20.0  # for the daemon
LOOK_SECONDS = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `render`."""
    add_spool_arguments(parser)
    parser.add_argument("names", nargs="+", metavar="NAME", help="as under done/, such as alice/interview.mp3")
    parser.add_argument(
        "--speaker", action="append", default=[], metavar="OLD=NEW", help="give a speaker another name; may be repeated"
    )
    parser.add_argument(
        "--replace",
        action="append",
        default=[],
        metavar="WRONG=RIGHT",
        help="replace a word, or /a pattern/; may be repeated",
    )
    parser.add_argument("--formats", metavar="LIST", help="formats to write besides those that exist, such as srt,vtt")
    parser.add_argument(
        "--digest",
        metavar="SHA256",
        help="refuse, unless this is the recording's or the present json transcript's SHA-256",
    )


def main(arguments: argparse.Namespace) -> int:
    """Render each name again; exit 1 if one cannot be."""
    settings = config.load(arguments.config, root=arguments.root)
    values: dict[str, Any] = {
        "speakers": dict(_split("--speaker", text) for text in arguments.speaker),
        "replacements": dict(_split("--replace", text) for text in arguments.replace),
    }
    if arguments.formats:
        values["formats"] = tuple(arguments.formats.split(","))
    if arguments.digest:
        values[KEY] = arguments.digest
    correction = parse(settings, values, by="whisperd render")
    return each(arguments, "done", lambda layout, name: _render(settings, layout, name, correction))


def _split(option: str, text: str) -> tuple[str, str]:
    """Split `old=new`; in a pattern only an equals sign behind its last slash counts."""
    at = text.rfind("/=") + 1 if text.startswith("/") else text.find("=")
    if at <= 0:
        raise ConfigError(
            "command line", [f"{option}: must be two texts with = between them (given: {printable(text)})"]
        )
    return text[:at], text[at + 1 :]


def _render(settings: Config, layout: Layout, name: str, correction: Correction) -> str:
    status_files = StatusFiles(layout)
    corrections = Corrections(layout, Naming(layout, status_files.is_superseded), status_files)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(layout.lock())
        except (SpoolLocked, PermissionError):  # a daemon runs, or this user may not see whether it does
            return _ask(settings, layout, corrections, name, correction)
        return _render_here(settings, corrections, name, correction)


def _render_here(settings: Config, corrections: Corrections, name: str, correction: Correction) -> str:
    from whisperd.worker import rerender  # noqa: PLC0415  # loads every format

    for number in corrections.unfinished():
        _drain(corrections.carry_out(number))
    completed = corrections.find(name)
    number = corrections.begin(corrections.request(settings, completed, correction))
    rerender.main(corrections.directory(number))
    corrections.plan(number, completed, correction)
    plan = _drain(corrections.carry_out(number))
    return _outcome(list(plan.files.values()), list(plan.kept.values()))


def _ask(settings: Config, layout: Layout, corrections: Corrections, name: str, correction: Correction) -> str:
    """Write a ticket for the daemon, once it is sure that the correction can be made."""
    from whisperd.worker import rerender  # noqa: PLC0415  # loads every format

    if not settings.tickets.enabled:
        raise CorrectionRefused(
            "a daemon runs, and follows no tickets (tickets.enabled)", hint="stop it, and run this command again"
        )
    ticket = as_ticket(correction)
    completed = corrections.find(name)
    tried = rerender.attempt(corrections.request(settings, completed, correction))
    if isinstance(tried, CorrectionRefused):
        raise tried
    folders, file = names.split(name)
    file = f"{file}.yaml"
    before = len(completed.document.get("corrections") or [])
    try:
        with Folder(layout.inbox, folders, create=True) as inbox:
            write(inbox, file, ticket, replace=False)
    except FileExistsError as error:
        raise FileExistsError(errno.EEXIST, f"the inbox has a ticket {printable(file)} already; remove it") from error
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        if not layout.has(f"inbox/{names.join(folders, file)}"):
            made = corrections.find(name).document["corrections"][before:]
            return _outcome(list(tried.files), [kept for entry in made for kept in entry["kept"].values()])
    return f"requested, by {printable(file)} in the inbox"


def _drain(publishing: Generator[None, None, Plan]) -> Plan:
    while True:
        try:
            next(publishing)
        except StopIteration as end:
            plan: Plan = end.value
            return plan


def _outcome(written: list[str], kept: list[str]) -> str:
    stays = f"; stays, because somebody had changed it: {', '.join(map(printable, kept))}" if kept else ""
    return f"rendered again: {', '.join(map(printable, written))}{stays}"
