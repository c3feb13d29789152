"""Prints the man pages, made from the parser and the schema: `python -m whisperd.cli.man 1` and `... 5`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

import whisperd
from whisperd import cli
from whisperd.core import errors
from whisperd.settings.config import SYSTEM_CONFIG, Config

if TYPE_CHECKING:
    from collections.abc import Iterator

EXIT_CODES = {
    errors.EXIT_OK: "Success.",
    errors.EXIT_FAILED: "Something failed: a file, or a check that found a problem.",
    errors.EXIT_USAGE: "Wrong usage of the command line.",
    errors.EXIT_BOOT: "The daemon cannot start because of model, device, ffmpeg or spool; one line gives the reason.",
    errors.EXIT_LOCKED: "Another whisperd is running in this root.",
    errors.EXIT_CONFIG: "The configuration is wrong; every problem is listed.",
}
FILES = {
    str(SYSTEM_CONFIG): "The configuration, see whisperd.yaml(5).",
    "inbox/": "Recordings to transcribe, in any sub-folders. A file X.cancel cancels X.",
    "outbox/": "Transcripts, and a status file for each recording.",
    "done/, failed/": "The originals. A file that is moved from failed/ back into inbox/ is tried again.",
}
MORE = "README.md of the repository leads to the other pages of the documentation, which are in .github/docs/ there."


def command_page() -> str:
    """Make the page whisperd(1)."""
    top = cli.parser()
    lines = [_title("whisperd", 1), ".SH NAME", "whisperd \\- transcribes the recordings that arrive in a folder"]
    lines += [".SH SYNOPSIS", ".B whisperd", ".I COMMAND", "[options]", ".SH DESCRIPTION", _plain(str(top.description))]
    lines += [".SH COMMANDS"]
    for parser in cli.parsers(top):
        if not any(isinstance(action, argparse._SubParsersAction) for action in parser._actions):  # noqa: SLF001
            lines += _command(parser)
    lines += [".SH EXIT STATUS", *_terms({str(code): text for code, text in EXIT_CODES.items()})]
    lines += [".SH FILES", *_terms(FILES), ".SH SEE ALSO", ".BR whisperd.yaml (5)", ".PP", _plain(MORE)]
    return "\n".join(lines) + "\n"


def configuration_page() -> str:
    """Make the page whisperd.yaml(5)."""
    lines = [_title("whisperd.yaml", 5), ".SH NAME", "whisperd.yaml \\- configuration of whisperd"]
    lines += [".SH DESCRIPTION", "YAML. Every key may be left out. A key with a dot belongs to a section:"]
    lines += [_plain("pool.workers is the key workers: of the section pool:. Unknown keys are refused."), ".SH KEYS"]
    lines += [*_terms(dict(_keys(Config))), ".SH SEE ALSO", ".BR whisperd (1)", ".PP", _plain(MORE)]
    return "\n".join(lines) + "\n"


def _command(parser: argparse.ArgumentParser) -> Iterator[str]:
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    yield f".SS {_plain(parser.prog)}"
    yield f".B {_plain(usage)}"
    yield ".PP"
    yield _plain(str(parser.description))
    described = {}
    for action in parser._actions:  # noqa: SLF001
        metavar = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else "")
        names = [f"{name} {metavar}".strip() for name in action.option_strings] or [str(metavar)]
        described[", ".join(names)] = action.help or ""
    yield from _terms(described)


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        default: Any = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from _keys(type(default), f"{prefix}{name}.")
        elif name != "script":  # for tests
            shown = json.dumps(default, default=list if isinstance(default, tuple) else str)
            yield f"{prefix}{name}", f"{field.description} (default: {shown})"


def _title(name: str, section: int) -> str:
    return f'.TH "{name.upper()}" "{section}" "" "whisperd {whisperd.__version__}"'


def _terms(terms: dict[str, str]) -> Iterator[str]:
    for term, text in terms.items():
        yield from (".TP", f".B {_plain(term)}", _plain(text) or "\\&")


def _plain(text: str) -> str:
    """Escape a text so that roff finds no commands in it, and `-` stays a hyphen that can be typed."""
    text = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    print({"1": command_page, "5": configuration_page}[sys.argv[1]](), end="")
