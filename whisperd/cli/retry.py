"""`whisperd retry NAME`: moves files from failed/ back into the inbox, where a running daemon finds them."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from whisperd.cli import add_spool_arguments
from whisperd.cli.each import each
from whisperd.intake.cancel_requests import SUFFIX
from whisperd.intake.ticket import is_ticket
from whisperd.spool import names
from whisperd.spool.durable import Folder, failpoint, move

if TYPE_CHECKING:
    import argparse

    from whisperd.spool.layout import Layout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retry`."""
    add_spool_arguments(parser)
    parser.add_argument("names", nargs="+", metavar="NAME", help="as under failed/, such as alice/interview.mp3")


def main(arguments: argparse.Namespace) -> int:
    """Move each file; exit 1 if one could not be moved."""
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
