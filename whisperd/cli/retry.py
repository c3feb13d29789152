"""`whisperd retry NAME`: move files from failed/ back into the inbox; the daemon, when it runs, sees them there."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from whisperd import config
from whisperd.errors import EXIT_FAILED, EXIT_OK
from whisperd.intake.requests import SUFFIX
from whisperd.intake.ticket import SUFFIXES
from whisperd.job import printable
from whisperd.spool import names
from whisperd.spool.durable import Folder, failpoint, move
from whisperd.spool.layout import Layout

if TYPE_CHECKING:
    import argparse


def main(arguments: argparse.Namespace) -> int:
    """Move each; exit 1 if one could not be."""
    layout = Layout(config.load(arguments.config, root=arguments.root).root)
    code = EXIT_OK
    for name in arguments.names:
        name = name.removeprefix("failed/")  # noqa: PLW2901
        folders, file = names.split(name)
        try:
            if ".." in folders or not file:
                raise FileNotFoundError(2, "no such file in failed/")
            with Folder(layout.failed, folders) as failed, Folder(layout.inbox, folders, create=True) as inbox:
                if not failed.exists(file):
                    raise FileNotFoundError(2, "no such file in failed/")
                with contextlib.suppress(FileNotFoundError):  # a request of yesterday must not end it again
                    os.unlink(file + SUFFIX, dir_fd=inbox.fd)
                for ticket in (file + suffix for suffix in SUFFIXES):
                    if failed.exists(ticket):  # first: the upload is taken as soon as it is there
                        move(failed, ticket, inbox, ticket)
                failpoint("retry.before_move")
                move(failed, file, inbox, file)
                failpoint("retry.after_move")
        except OSError as error:
            reason = {
                "FileNotFoundError": "no such file in failed/",
                "FileExistsError": "the inbox has a file of that name",
            }
            print(f"whisperd: {printable(name)}: {reason.get(type(error).__name__, error.strerror)}", file=sys.stderr)
            code = EXIT_FAILED
        else:
            print(f"{printable(name)}: back in the inbox")
    return code
