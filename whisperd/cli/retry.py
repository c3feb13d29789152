"""`whisperd retry NAME`: moves files from failed/ back into the inbox, where a running daemon finds them.

With `--done` it has completed recordings transcribed once more: each gets a second name in the inbox, so that the first result
and its original stay as they are, and the second result gets a number.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from typing import TYPE_CHECKING

from whisperd.cli import add_spool_arguments
from whisperd.cli.each import each
from whisperd.core.correction import is_correction
from whisperd.core.errors import ConfigError, InputError, SpoolError
from whisperd.core.job import Ticket
from whisperd.intake.cancel_requests import SUFFIX
from whisperd.intake.complete import is_open_to_readers
from whisperd.intake.ticket import SUFFIXES, Tickets, is_ticket, parse
from whisperd.settings import config, profiles
from whisperd.spool import names
from whisperd.spool.durable import Folder, failpoint, link, move, write
from whisperd.spool.status_file import find_completed

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from whisperd.settings.config import Config
    from whisperd.spool.layout import Layout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retry`."""
    add_spool_arguments(parser)
    parser.add_argument("names", nargs="+", metavar="NAME", help="as under failed/, such as alice/interview.mp3")
    parser.add_argument(
        "--done", action="store_true", help="transcribe completed recordings of done/ again, and keep the first result"
    )
    parser.add_argument("--language", metavar="CODE", help="with --done: the language that is spoken")
    parser.add_argument(
        "--model", metavar="NAME", help="with --done: the model, if tickets.allow and a profile name it"
    )


def main(arguments: argparse.Namespace) -> int:
    """Move each file, or have it transcribed again; exit 1 if one could not be."""
    options = {key: value for key in ("language", "model") if (value := getattr(arguments, key)) is not None}
    if arguments.done:
        settings = config.load(arguments.config, root=arguments.root)
        return each(arguments, "done", lambda layout, name: _again(settings, layout, name, options))
    if options:
        raise ConfigError("command line", [f"--{key}: only with --done" for key in options])
    return each(arguments, "failed", _retry)


def _retry(layout: Layout, name: str) -> str:
    folders, file = names.split(name)
    try:
        with Folder(layout.failed, folders) as failed, Folder(layout.inbox, folders, create=True) as inbox:
            os.stat(
                file, dir_fd=failed.fd, follow_symlinks=False
            )  # raises before anything is changed if it is not there
            with contextlib.suppress(FileNotFoundError):  # an old request to cancel must not end it again
                os.unlink(file + SUFFIX, dir_fd=inbox.fd)
            _move_back(failed, inbox, file)
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such file in failed/") from error
    except FileExistsError as error:
        raise FileExistsError(errno.EEXIST, "the inbox has a file of that name") from error
    return "back in the inbox"


def _move_back(failed: Folder, inbox: Folder, file: str) -> None:
    """Move the ticket first, since the upload is claimed as soon as it is there; move it back if the upload cannot follow."""
    tickets = sorted(name for name in os.listdir(failed.fd) if is_ticket(name) and os.path.splitext(name)[0] == file)
    for ticket in tickets:
        move(failed, ticket, inbox, ticket)
    failpoint("retry.before_move")
    try:
        move(failed, file, inbox, file)
    except FileExistsError:
        for ticket in tickets:
            move(inbox, ticket, failed, ticket)
        raise
    failpoint("retry.after_move")


def _again(settings: Config, layout: Layout, name: str, options: dict[str, Any]) -> str:
    """Give a completed recording a second name in the inbox, with a ticket of the options of the first time and these."""
    folders, file = names.split(name)
    try:
        with Folder(layout.done, folders) as done, Folder(layout.inbox, folders, create=True) as inbox:
            _expect_free_and_readable(done, inbox, file)
            values = _values_of_first(done, file) | options
            _check(settings, layout, name, values)
            ticket = names.ticket(file, SUFFIXES[0])
            if values:  # first, since the recording is claimed as soon as it is there
                content = json.dumps(values, ensure_ascii=False, indent=1) + "\n"
                write(inbox, ticket, content.encode(), replace=False)
            try:
                link(done, file, inbox, file)
            except OSError as error:
                if values:
                    os.unlink(ticket, dir_fd=inbox.fd)
                if isinstance(error, FileExistsError):
                    raise
                reason = f"cannot be linked into the inbox, copy it there instead: {error.strerror}"
                raise OSError(error.errno, reason) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such file in done/") from error
    return "in the inbox again; the first result stays"


def _expect_free_and_readable(done: Folder, inbox: Folder, file: str) -> None:
    """Check what would have the recording refused in the inbox, or take another's ticket.

    Raises:
        OSError: with a reason for people; FileNotFoundError if there is no such recording.
    """
    status = os.stat(file, dir_fd=done.fd, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError
    if not is_open_to_readers(inbox, status):
        raise PermissionError(errno.EACCES, "its group may not read it: chmod g+r, or copy it into the inbox")
    if any(inbox.exists(each) for each in (file, *(file + suffix for suffix in SUFFIXES))):
        raise FileExistsError(errno.EEXIST, "the inbox has a file or a ticket of that name")


def _values_of_first(done: Folder, file: str) -> dict[str, Any]:
    """The options of the ticket that came with the recording."""
    for suffix in SUFFIXES:
        with contextlib.suppress(OSError):
            values = parse(file + suffix, done.read(file + suffix)).values
            if not is_correction(values):
                return values
    return {}


def _check(settings: Config, layout: Layout, name: str, values: dict[str, Any]) -> None:
    """Refuse what the daemon would refuse, or would not transcribe.

    Raises:
        SpoolError: with the reason.
    """
    if values and not settings.tickets.enabled:
        raise SpoolError("options need a ticket, and tickets are turned off (tickets.enabled)", hint="turn them on")
    tickets = Tickets(layout.inbox).read(name) if settings.tickets.enabled else ()
    own = [Ticket("of this command", suffix=SUFFIXES[0], values=values)] if values else []
    try:
        spec = profiles.resolve(settings, name, [*tickets, *own])
    except InputError as error:
        hint = "tickets.allow has the keys that may be set, and only models that the configuration names may be chosen"
        raise SpoolError(error.message, hint=hint) from error
    first = find_completed(layout, name)
    is_same = first is not None and json.loads(json.dumps(spec.changes)) == first.options
    if settings.intake.duplicates == "skip" and is_same:
        raise SpoolError(
            "it was transcribed with the same options, and intake.duplicates is skip", hint="give --language or --model"
        )
