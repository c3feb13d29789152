"""`whisperd config show [NAME]`: prints the settings in force, or those for one upload, each with where it comes from."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from whisperd.cli import add_spool_arguments
from whisperd.core.display import is_plain, printable
from whisperd.core.errors import EXIT_OK, ConfigError
from whisperd.core.job import Signature
from whisperd.core.options import to_json
from whisperd.intake.ticket import Tickets, is_ticket
from whisperd.settings import config, profiles
from whisperd.settings.document import Document
from whisperd.settings.sections import SETTABLE, public
from whisperd.spool import names
from whisperd.spool.durable import Folder
from whisperd.spool.layout import Layout

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from whisperd.core.job import Ticket
    from whisperd.settings.config import Config

DEFAULT = "default"  # the origin of what nobody has set
KEY_WIDTH = 44  # columns of keys and short values, before the origins begin
HIDDEN = {"script"}  # keys for tests


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `config` and their options."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    show = verbs.add_parser(
        "show", help="print the settings in force, or those for one upload, and where each comes from"
    )
    add_spool_arguments(show)
    show.add_argument("name", nargs="?", metavar="NAME", help="as under inbox/, such as alice/interview.mp3")


class Setting(NamedTuple):
    """One key that is in force, its value as JSON knows it, and where it comes from."""

    key: str
    value: Any
    origin: str

    def __str__(self) -> str:
        return f"{f'{self.key}: {_as_yaml(self.value)}':{KEY_WIDTH}}  # {self.origin}"


class Sources:
    """Where the configuration comes from: its file, the command line and the defaults."""

    def __init__(self, path: Path | None, root: Path | None) -> None:
        self.settings: Config = config.load(path, root=root)
        self._path = config.file_of(path, root=root)
        self._root = root
        self._found = config.read(self._path) if self._path else Document()

    def all(self) -> Iterator[Setting]:
        """Yield every key of the configuration."""
        values = json.loads(json.dumps(dict(self.settings), default=to_json))
        for key in config.dotted_keys():
            if key not in HIDDEN:
                section, _, field = key.rpartition(".")
                value = (values[section] if section else values)[field]
                yield Setting(key, public(tuple(key.split(".")), value), self._origin(key))

    def of_upload(self, name: str, tickets: tuple[Ticket, ...]) -> Iterator[Setting]:
        """Yield the keys that profiles and tickets can set, as they are for one upload.

        Raises:
            InputError: a ticket cannot be followed, or the profiles that match contradict each other.
        """
        spec = profiles.resolve(self.settings, name, tickets)
        origins = dict(spec.origins)
        for glob, changes in self.settings.profiles.items():
            origin = f"profile {printable(glob)}"
            origins |= {
                key: f"{origin}{self._place('profiles', glob, key)}"
                for key in changes
                if spec.origins.get(key) == origin
            }
        sections = profiles.changed(self.settings, spec.changes)[0]
        for key in ("model", *SETTABLE):
            section, field = SETTABLE.get(key, ("", key))
            dotted = f"{section}.{field}" if section else field
            value = getattr(getattr(sections, section), field) if section else spec.model
            yield Setting(
                dotted, json.loads(json.dumps(value, default=to_json)), origins.get(key) or self._origin(dotted)
            )

    def _origin(self, key: str) -> str:
        if key == "root" and self._root is not None:
            return "--root"
        place = self._place(*key.split("."))
        return f"{printable(str(self._path))}{place}" if place else DEFAULT

    def _place(self, *way: str) -> str:
        return f", {self._found.keys[way]}" if way in self._found.keys else ""


def main(arguments: argparse.Namespace) -> int:
    """Print the settings; those for an upload are what a claim would record for it now."""
    sources = Sources(arguments.config, arguments.root)
    if arguments.name is None:
        print(*sources.all(), sep="\n")
        return EXIT_OK
    name = arguments.name.removeprefix("inbox/")
    folders, file = names.split(name)
    if ".." in folders or not file or name.startswith("/"):
        raise ConfigError(
            "command line", [f"{printable(name)}: must be a name relative to inbox/, such as alice/a.mp3"]
        )
    print(*sources.of_upload(name, tickets_of(sources.settings, name)), sep="\n")
    return EXIT_OK


def tickets_of(settings: Config, name: str) -> tuple[Ticket, ...]:
    """Read the tickets that count for an upload of this name now, in whatever case they are spelled."""
    if not settings.tickets.enabled:
        return ()
    inbox = Layout(settings.root).inbox
    tickets = Tickets(inbox)
    folders, _ = names.split(name)
    for depth in range(len(folders) + 1):
        with contextlib.suppress(OSError), Folder(inbox, folders[:depth]) as folder:
            for file in filter(is_ticket, os.listdir(folder.fd)):
                status = os.stat(file, dir_fd=folder.fd, follow_symlinks=False)
                tickets.observe(names.join(folders[:depth], file), Signature.of(status), 0.0)
    return tickets.read(name)


def _as_yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    if not is_plain(text.replace("\n", "")):
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    return " ".join(text.removesuffix("...\n").split())
