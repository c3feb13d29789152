"""`whisperd cancel NAME`: put `NAME.cancel` into the inbox, as anybody may; the daemon, when it runs, obeys it."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from whisperd import config
from whisperd.errors import EXIT_FAILED, EXIT_OK
from whisperd.intake.requests import SUFFIX
from whisperd.job import UNDER_WAY, printable
from whisperd.spool import names, sidecar
from whisperd.spool.durable import Folder, write
from whisperd.spool.layout import Layout
from whisperd.spool.notes import NOTES_MAX

if TYPE_CHECKING:
    import argparse


def main(arguments: argparse.Namespace) -> int:
    """Ask for each; exit 1 if one is not there, or cannot be asked for."""
    layout = Layout(config.load(arguments.config, root=arguments.root).root)
    code = EXIT_OK
    for name in arguments.names:
        name = name.removeprefix("inbox/")  # noqa: PLW2901
        folders, file = names.split(name)
        try:
            if ".." in folders or not file or not _is_under_way(layout, name):
                raise FileNotFoundError(2, "nothing of that name waits or is under way")
            with Folder(layout.inbox, folders, create=True) as inbox:
                write(inbox, file + SUFFIX, b"")
        except OSError as error:
            print(f"whisperd: {printable(name)}: {error.strerror}", file=sys.stderr)
            code = EXIT_FAILED
        else:
            print(f"{printable(name)}: asked to be cancelled, by {printable(file + SUFFIX)} in the inbox")
    return code


def _is_under_way(layout: Layout, name: str) -> bool:
    """Whether it lies in the inbox, or a sidecar speaks of a job of this name that has not ended."""
    folders, file = names.split(name)
    with contextlib.suppress(OSError), Folder(layout.inbox, folders) as inbox:
        if inbox.exists(file):
            return True
    with contextlib.suppress(OSError), Folder(layout.outbox, folders) as outbox:
        for number in range(1, NOTES_MAX + 1):  # a job whose name was taken goes by a numbered one
            document = sidecar.decode(outbox.read(names.sidecar(names.numbered(file, number))))
            if document and document["status"] in UNDER_WAY and (number == 1 or document["name"] == printable(name)):
                return True
    return False
