"""What is done for every name on a command line, the good ones among bad ones too."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

from whisperd.core.display import printable
from whisperd.core.errors import EXIT_FAILED, EXIT_OK
from whisperd.settings import config
from whisperd.spool import names
from whisperd.spool.layout import Layout

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


def each(arguments: argparse.Namespace, room: str, act: Callable[[Layout, str], str]) -> int:
    """Do it for each name, and say what came of it; exit 1 if one could not be.

    Args:
        arguments: `names`, and where the configuration is.
        room: of the spool, in which the names lie; `room/name` is as good as `name`.
        act: does it and returns what to say; raises OSError with a reason that is fit to be read.
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
        except OSError as error:
            print(f"whisperd: {printable(name)}: {error.strerror}", file=sys.stderr)
            code = EXIT_FAILED
        else:
            print(f"{printable(name)}: {said}")
    return code
