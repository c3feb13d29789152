"""`whisperd cancel NAME`: creates `NAME.cancel` in the inbox, by which a running daemon ends the job or upload."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

from whisperd.cli import add_spool_arguments
from whisperd.cli.each import each
from whisperd.core.display import printable
from whisperd.core.job import UNDER_WAY
from whisperd.intake.cancel_requests import SUFFIX
from whisperd.spool import names, status_file
from whisperd.spool.durable import Folder, write
from whisperd.spool.status_file import EXPLAINED_MAX

if TYPE_CHECKING:
    import argparse

    from whisperd.spool.layout import Layout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `cancel`."""
    add_spool_arguments(parser)
    parser.add_argument("names", nargs="+", metavar="NAME", help="as under inbox/, such as alice/interview.mp3")


def main(arguments: argparse.Namespace) -> int:
    """Request the end of each name; exit 1 if one does not exist or the request cannot be written."""
    return each(arguments, "inbox", _ask)


def _ask(layout: Layout, name: str) -> str:
    folders, file = names.split(name)
    if not _is_under_way(layout, name):
        raise FileNotFoundError(errno.ENOENT, "nothing of that name waits or runs")
    with Folder(layout.inbox, folders, create=True) as inbox:
        write(inbox, file + SUFFIX, b"")
    return f"cancellation requested, by {printable(file + SUFFIX)} in the inbox"


def _is_under_way(layout: Layout, name: str) -> bool:
    """Whether the name is in the inbox, or a status file names a job of this name that has not ended."""
    folders, file = names.split(name)
    with contextlib.suppress(OSError), Folder(layout.inbox, folders) as inbox:
        if inbox.exists(file):
            return True
    with contextlib.suppress(OSError), Folder(layout.outbox, folders) as outbox:
        for number in range(1, EXPLAINED_MAX + 1):  # a job whose name was taken has a numbered one
            document = status_file.decode(outbox.read(names.status_file(names.numbered(file, number))))
            if document and document["status"] in UNDER_WAY and (number == 1 or document["name"] == printable(name)):
                return True
    return False
