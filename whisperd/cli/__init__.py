"""The command line: parses the arguments, runs one command and returns the exit code.

Each command is a module of this package with two functions, `add_arguments(parser)` and `main(arguments)`. It is imported
only when it is called, so that `whisperd status` in a script starts quickly.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import whisperd
from whisperd.core.errors import EXIT_FAILED, EXIT_OK, WhisperdError

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS = {  # the name of the command, which is that of its module, and one line of help
    "run": "run the daemon",
    "check": "check configuration and environment, and say how to fix what is wrong; start nothing",
    "status": "show what runs, waits, is done and has failed, or all about one upload",
    "logs": "print what was logged about one job",
    "config": "show the settings in force, and where each comes from",
    "retry": "move files from failed/ back into the inbox",
    "cancel": "end jobs, or remove uploads from the inbox; the originals go to failed/",
    "render": "write transcripts again, without the model, with names of speakers and wrong words put right",
    "models": "list, fetch, import and verify model weights",
    "completion": "print a script that makes a shell complete commands and options",
    "transcribe": "transcribe files directly, without the daemon",
    "init": "prepare a service of your own, run by `systemctl --user`",
    "demo": "try whisperd: transcribe a short recording in a new spool in ./whisperd-demo",
    "bench": "measure the speed of this machine, or compare whisperd with other programs",
}


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser with all commands; with `only`, just that one has its options, and no other module is imported."""
    top = argparse.ArgumentParser(prog="whisperd", description="Transcribe the recordings that arrive in a folder.")
    top.add_argument("--version", action="version", version=f"whisperd {whisperd.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help_ in COMMANDS.items():
        command = commands.add_parser(name, help=help_)
        if only in {name, None}:
            _module(name).add_arguments(command)
    return top


def add_spool_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--config` and `--root`, by which most commands find the spool."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration file (default: /etc/whisperd/whisperd.yaml if it exists)",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="the spool, instead of that of the configuration; without --config no configuration is read",
    )


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and those of all its commands, each with its help as description."""
    yield parser
    for action in parser._actions:  # noqa: SLF001  # argparse has no other way to list them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for help_, below in zip(action._choices_actions, action.choices.values(), strict=True):  # noqa: SLF001
                below.description = below.description or help_.help
                yield from parsers(below)


def main(argv: list[str] | None = None) -> int:
    """Run one command; an expected error is printed as one line, an unexpected one as a traceback."""
    words = sys.argv[1:] if argv is None else argv
    command = next((word for word in words if not word.startswith("-")), "")  # no option before it takes a value
    arguments = parser(command).parse_args(words)
    try:
        code: int = _module(arguments.command).main(arguments)
    except WhisperdError as error:
        prefix = "<3>" if _under_systemd() else ""
        print(f"{prefix}whisperd: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `whisperd status | head` is no mistake
        sys.stderr.close()
        return EXIT_OK
    except KeyboardInterrupt:
        return EXIT_FAILED
    return code


def _module(command: str) -> Any:
    return importlib.import_module(f"whisperd.cli.{command}")


def _under_systemd() -> bool:
    return "JOURNAL_STREAM" in os.environ
