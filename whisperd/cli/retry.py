"""`whisperd retry NAME`: move files from failed/ back into the inbox; the daemon, when it runs, sees them there."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from whisperd.cli.each import each
from whisperd.intake.requests import SUFFIX
from whisperd.intake.ticket import is_ticket
from whisperd.spool import names
from whisperd.spool.durable import Folder, failpoint, move

if TYPE_CHECKING:
    import argparse

    from whisperd.spool.layout import Layout


def main(arguments: argparse.Namespace) -> int:
    """Move each; exit 1 if one could not be."""
    return each(arguments, "failed", _retry)


def _retry(layout: Layout, name: str) -> str:
    folders, file = names.split(name)
    try:
        with Folder(layout.failed, folders) as failed, Folder(layout.inbox, folders, create=True) as inbox:
            os.stat(file, dir_fd=failed.fd, follow_symlinks=False)  # if it is not there, nothing is touched
            with contextlib.suppress(FileNotFoundError):  # a request of yesterday must not end it again
                os.unlink(file + SUFFIX, dir_fd=inbox.fd)
            _move_back(failed, inbox, file)
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such file in failed/") from error
    except FileExistsError as error:
        raise FileExistsError(errno.EEXIST, "the inbox has a file of that name") from error
    return "back in the inbox"


def _move_back(failed: Folder, inbox: Folder, file: str) -> None:
    """The ticket first, for the upload is taken as soon as it is there; one that it cannot follow would be another's."""
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
