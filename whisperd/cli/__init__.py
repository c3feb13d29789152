"""The command line: arguments in, exit code out.

Each command is a module of its own, imported when it is called, so that `whisperd status` in a script stays quick.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import whisperd
from whisperd.core.errors import EXIT_FAILED, EXIT_OK, WhisperdError

if TYPE_CHECKING:
    from collections.abc import Iterator

PEERS = ("openai-whisper", "faster-whisper", "whisper.cpp")  # what `bench` knows


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration (default: /etc/whisperd/whisperd.yaml if it is there)",
    )
    place.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="the spool, in place of what the configuration says; alone: no configuration is read",
    )

    top = argparse.ArgumentParser(
        prog="whisperd", description="Watch a folder and turn the recordings dropped into it into text."
    )
    top.add_argument("--version", action="version", version=f"whisperd {whisperd.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", parents=[place], help="the daemon")
    run.add_argument(
        "--once", action="store_true", help="end when the inbox is empty and all jobs have ended; exit 1 if one failed"
    )

    commands.add_parser("check", parents=[place], help="validate configuration and environment; start nothing")

    status = commands.add_parser("status", parents=[place], help="what runs, what waits, what failed")
    status.add_argument("--json", action="store_true", help="for programs")
    status.add_argument("--watch", action="store_true", help="go on showing it, until Ctrl-C")

    retry = commands.add_parser("retry", parents=[place], help="move files from failed/ back into the inbox")
    retry.add_argument("names", nargs="+", metavar="NAME", help="as under failed/, such as alice/interview.mp3")

    cancel = commands.add_parser(
        "cancel", parents=[place], help="end jobs, or take uploads out of the inbox; the originals go to failed/"
    )
    cancel.add_argument("names", nargs="+", metavar="NAME", help="as under inbox/, such as alice/interview.mp3")

    models = commands.add_parser("models", help="the weights on this machine")
    verbs = models.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", parents=[place], help="what is here and what can be fetched")
    fetch = verbs.add_parser("fetch", parents=[place], help="download a model from OpenAI")
    fetch.add_argument("name", metavar="NAME")
    bring = verbs.add_parser(
        "import", parents=[place], help="convert a CTranslate2 or Hugging Face safetensors directory"
    )
    bring.add_argument("directory", type=Path, metavar="DIRECTORY")
    bring.add_argument("name", metavar="NAME", help="what to call it here")
    verify = verbs.add_parser("verify", parents=[place], help="check weights by their SHA-256")
    verify.add_argument("name", metavar="NAME")

    completion = commands.add_parser("completion", help="print what makes a shell complete commands and options")
    completion.add_argument("shell", choices=("bash", "zsh"))

    transcribe = commands.add_parser(
        "transcribe", parents=[place], help="transcribe files here and now, without the daemon"
    )
    transcribe.add_argument("files", nargs="+", type=Path, metavar="FILE")
    transcribe.add_argument(
        "--output-dir", type=Path, default=Path(), metavar="DIR", help="where the transcripts go (default: here)"
    )
    transcribe.add_argument("--profile", metavar="GLOB", help="options of this profile of the configuration")
    transcribe.add_argument("--model", metavar="NAME")
    transcribe.add_argument("--language", metavar="CODE")
    transcribe.add_argument("--task", choices=("transcribe", "translate"))
    transcribe.add_argument("--formats", metavar="LIST", help="such as txt,srt")

    demo = commands.add_parser(
        "demo", help="try it: a fresh spool in ./whisperd-demo, one short recording through all of it"
    )
    demo.add_argument("--directory", type=Path, default=Path("whisperd-demo"), metavar="DIR")

    bench = commands.add_parser("bench", help="how fast is this machine, or whisperd beside other programs?")
    bench.add_argument("--config", type=Path, metavar="FILE", help="configuration to measure (root stays untouched)")
    bench.add_argument(
        "--audio", type=Path, metavar="DIR", help="recordings, each x.ogg with its words in x.txt (default: a sample)"
    )
    bench.add_argument(
        "--against", type=_peers, default=(), metavar="LIST", help="of openai-whisper,faster-whisper,whisper.cpp"
    )
    bench.add_argument("--rounds", type=int, choices=range(1, 100), metavar="N", help="(default: 3, alone 1)")
    bench.add_argument("--model", metavar="NAME")
    bench.add_argument("--language", metavar="CODE", help="of all recordings (default: detected)")
    bench.add_argument("--beam-size", type=int, metavar="N", help="(default: as configured)")
    bench.add_argument("--json", action="store_true", help="for programs")
    return top


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of all its commands, each with its help as description."""
    yield parser
    for action in parser._actions:  # noqa: SLF001  # argparse has no other way to list them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for help_, below in zip(action._choices_actions, action.choices.values(), strict=True):  # noqa: SLF001
                below.description = below.description or help_.help
                yield from parsers(below)


def _peers(text: str) -> tuple[str, ...]:
    """Programs to compare with, each once."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if unknown := [name for name in names if name not in PEERS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(PEERS)}")
    return names


def main(argv: list[str] | None = None) -> int:
    """Run one command; expected errors are one line, unexpected ones a traceback."""
    arguments = parser().parse_args(argv)
    command = importlib.import_module(f"whisperd.cli.{arguments.command}")
    try:
        code: int = command.main(arguments)
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


def _under_systemd() -> bool:
    return "JOURNAL_STREAM" in os.environ
