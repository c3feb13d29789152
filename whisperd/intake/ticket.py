"""Tickets: options that people put beside their recordings, since they have a share and no shell.

`interview.mp3.yaml` is for interview.mp3, `_whisperd.yaml` for the recordings of its folder and of those in it; `.yml` is
as good. What stands there comes from anybody who may write into the inbox: read by descriptor, bounded in size, and of
YAML only one mapping of plain scalars and lists of them, without aliases, tags or a second document.
"""

from __future__ import annotations

import errno
import math
import os
import re
import stat
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import yaml

from whisperd.core.display import printable
from whisperd.core.job import Signature, Ticket
from whisperd.spool import names
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whisperd.intake.lease import Leases
    from whisperd.intake.options import IntakeOptions

SUFFIXES: Final = (".yaml", ".yml")
STEM_OF_FOLDER: Final = "_whisperd"
OF_FOLDER: Final = tuple(STEM_OF_FOLDER + suffix for suffix in SUFFIXES)
BYTES_MAX = 16 << 10
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


def is_ticket(name: str) -> bool:
    """Whether a file in the inbox is a ticket, and so no upload."""
    return name.lower().endswith(SUFFIXES)


def reason(inbox: Path, name: str, *, enabled: bool) -> str:
    """Why a ticket lies where it lies, for its note."""
    folders, file = names.split(name)
    recording = os.path.splitext(file)[0]
    if not enabled:
        return "this is a ticket, and tickets are turned off here (tickets.enabled)"
    try:
        with Folder(inbox, folders) as folder:
            if folder.exists(recording):
                return f"this is the ticket of {printable(recording)}, and is taken with it"
    except OSError:
        pass
    return (
        f"this is a ticket for {printable(recording)}, which is not in the inbox: it counts for the next upload of that name; "
        "if the recording came before its ticket it was taken without: move it back here to have it done again"
    )


def read(inbox: Path, name: str) -> tuple[Ticket, ...]:
    """The tickets of an upload, those of the outer folders first, its own last; bad ones with what is wrong with them."""
    found = []
    for folders, stem, is_own in _candidates(name):
        ways = (_read(inbox, folders, stem, suffix, is_own=is_own) for suffix in SUFFIXES)
        found.append(next((ticket for ticket in ways if ticket is not None), None))
    return tuple(ticket for ticket in found if ticket is not None)


def unsettled(inbox: Path, name: str, options: IntakeOptions, leases: Leases) -> str | None:
    """Why an upload has to wait for one of its tickets, which is being written."""
    if not options.tickets:
        return None
    for folders, file in ((folders, stem + suffix) for folders, stem, _ in _candidates(name) for suffix in SUFFIXES):
        try:
            with Folder(inbox, folders) as folder:
                fd = _open(folder, file)
                try:
                    writer = leases.has_writer(folder, fd)
                    needed = options.settle_seconds if writer is None else options.settle_seconds_proven
                    # ctime is the server's own; one from the future says nothing
                    is_fresh = 0 <= time.time() - os.fstat(fd).st_ctime < needed
                finally:
                    os.close(fd)
        except OSError:
            continue
        if writer or is_fresh:
            return f"waiting for its ticket {printable(file)}, which is being written"
    return None


def _candidates(name: str) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """Every ticket that an upload may have, the weakest first: its folders, its name without suffix, if it is its own."""
    folders, file = names.split(name)
    for depth in range(len(folders) + 1):
        yield folders[:depth], STEM_OF_FOLDER, False
    yield folders, file, True


def _open(folder: Folder, file: str) -> int:
    return os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder.fd)


def _read(inbox: Path, folders: tuple[str, ...], stem: str, suffix: str, *, is_own: bool) -> Ticket | None:
    """One ticket; None if there is none."""
    file = stem + suffix
    name = names.join(folders, file)
    try:
        with Folder(inbox, folders) as folder:
            fd = _open(folder, file)
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    return Ticket(name, problems=("is not a regular file",))
                data = os.read(fd, BYTES_MAX + 1)
            finally:
                os.close(fd)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        why = "is a symlink" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
        return Ticket(name, problems=(why,))
    ticket = parse(name, data)
    return replace(ticket, suffix=suffix if is_own else "", signature=Signature.of(status))


def parse(name: str, data: bytes) -> Ticket:
    """What a ticket says, its keys and values as yet unchecked; never raises, whatever the bytes are."""
    if len(data) > BYTES_MAX:
        return Ticket(name, problems=(f"has more than {BYTES_MAX >> 10} kB",))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Ticket(name, problems=(f"is not UTF-8 (byte {error.start})",))
    try:
        _check_shape(text)
        return _mapping(name, text)
    except _Problem as error:
        return Ticket(name, problems=(str(error),))
    except yaml.YAMLError as error:
        mark: Any = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        return Ticket(name, problems=(f"{where}no valid YAML: {_said(error)}",))


class _Problem(Exception):
    """What is wrong with the shape of a ticket."""


class _Loader(yaml.SafeLoader):
    """The scalars of YAML 1.2: `no` is a language and not false, `12:30` is no number, a date is a text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's way


for _tag, _text, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_text})$"), _first)


def _check_shape(text: str) -> None:
    """Refuse, before anything is built, what could grow or run: aliases, tags, nesting, a second document."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        mark: Any = event.start_mark
        line = mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _Problem(f"line {line}: anchors and aliases are not known here")
        if getattr(event, "tag", None) is not None:
            raise _Problem(f"line {line}: tags are not known here")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth != (1 if isinstance(event, yaml.MappingStartEvent) else 2):
                raise _Problem(f"line {line}: only `key: value` lines are known here, a value being a scalar or a list")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent) and not depth and event.value:
            raise _Problem(f"line {line}: only `key: value` lines are known here")
        if documents > 1:
            raise _Problem(f"line {line}: a second document")


def _mapping(name: str, text: str) -> Ticket:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value if isinstance(node, yaml.MappingNode) else ():
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise _Problem(f"line {line}: a key must be a word")
            key = str(key_node.value)
            if key in lines:
                raise _Problem(f"line {line}: {printable(key)} stands twice")
            lines[key] = line
            values[key] = _value(loader, value_node)
    finally:
        loader.dispose()
    return Ticket(name, values=values, lines=lines)


def _value(loader: _Loader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return tuple(_value(loader, each) for each in node.value)
    try:
        value = loader.construct_object(node)
    except ValueError as error:  # a number of thousands of digits
        raise _Problem(f"line {node.start_mark.line + 1}: {error}") from error
    if isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
        raise _Problem(f"line {node.start_mark.line + 1}: half a character")
    if isinstance(value, float) and not math.isfinite(value):
        raise _Problem(f"line {node.start_mark.line + 1}: a number that large is not known here")
    return value


def _said(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return printable(" ".join(str(problem).split()))
