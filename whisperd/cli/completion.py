"""`whisperd completion SHELL`: prints a script by which the shell completes commands and options of whisperd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import shtab

from whisperd import cli
from whisperd.core.errors import EXIT_OK

if TYPE_CHECKING:
    import argparse

FILES = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY, "DIRECTORY": shtab.DIRECTORY}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the name of the shell."""
    parser.add_argument("shell", choices=("bash", "zsh"))


def main(arguments: argparse.Namespace) -> int:
    """Print the script."""
    top = cli.parser()
    for parser in cli.parsers(top):
        for action in parser._actions:  # noqa: SLF001  # argparse has no other way to list them
            if isinstance(action.metavar, str) and action.metavar in FILES:
                action.complete = FILES[action.metavar]  # type: ignore[attr-defined]
    print(shtab.complete(top, arguments.shell))
    return EXIT_OK
