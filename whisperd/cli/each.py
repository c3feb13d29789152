"""Runs an action for every name on a command line, for `retry`, `cancel` and `render`."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

from whisperd.core.display import printable
from whisperd.core.errors import EXIT_FAILED, EXIT_OK, SpoolError
from whisperd.settings import config
from whisperd.spool import names
from whisperd.spool.layout import Layout

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


def each(arguments: argparse.Namespace, room: str, act: Callable[[Layout, str], str]) -> int:
    """Act on each name and print the outcome; one failure does not stop the rest, and exit code 1 tells of it.

    Args:
        arguments: `names`, `config` and `root` of the command line.
        room: the folder of the spool that has the names; `room/name` means the same as `name`.
        act: does the work and returns a text to print; raises OSError or SpoolError with a reason for people.
    """
    layout = Layout(config.load(arguments.config, root=arguments.root).root)
    code = EXIT_OK
    for given in arguments.names:
        name = given.removeprefix(f"{room}/")
        folders, file = names.split(name)
        try:
            if ".." in folders or not file:
                raise FileNotFoundError(errno.ENOENT, f"no such file in {room}/")
            said = act(layout, name)
        except (OSError, SpoolError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            print(f"whisperd: {printable(name)}: {reason}", file=sys.stderr)
            code = EXIT_FAILED
        else:
            print(f"{printable(name)}: {said}")
    return code
