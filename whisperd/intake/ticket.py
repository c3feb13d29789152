"""Finds, reads and parses tickets: files of options that users without a shell put beside their recordings.

`interview.mp3.yaml` is for interview.mp3, `_whisperd.yaml` for the recordings of its folder and of those in it; `.yml` is
as good, and case does not matter. Anybody who may write into the inbox can write a ticket: it is read by descriptor, bounded
in size, and holds one YAML mapping of plain scalars and lists of them, without aliases, tags or a second document.
"""

from __future__ import annotations

import errno
import math
import os
import re
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import yaml

from whisperd.core.display import printable
from whisperd.core.job import Signature, Ticket
from whisperd.intake.upload import TRACKED_MAX
from whisperd.spool import names
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whisperd.intake.lease import Leases
    from whisperd.settings.sections import IntakeOptions

SUFFIXES: Final = (".yaml", ".yml")
STEM_OF_FOLDER: Final = "_whisperd"
BYTES_MAX = 16 << 10
SPELLINGS_MAX = 50  # of one name: each is opened at each look at the recording, and a long name has millions
NAMED_MAX = 2  # tickets in one message, besides the first
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


def is_ticket(name: str) -> bool:
    """Whether a file in the inbox is a ticket, and so no upload."""
    return name.lower().endswith(SUFFIXES)


def is_folder_ticket(name: str) -> bool:
    """Whether a file is the ticket of the folder that it is in."""
    return names.split(name)[1].lower() in {STEM_OF_FOLDER + suffix for suffix in SUFFIXES}


def reason(inbox: Path, name: str, *, enabled: bool) -> str:
    """Explain in its status file why a ticket is still in the inbox."""
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
        "a recording that came before its ticket was taken without it: move it back here to have it transcribed again"
    )


@dataclass(slots=True)
class _Seen:
    """The last known state of a ticket; times are on the monotonic clock."""

    signature: Signature | None
    quiet_since: float


class Tickets:
    """The tickets in the inbox: which of them belong to an upload, and whether they have settled.

    Windows and phones write the same name in many ways, so case does not matter, nor which of the two suffixes a name has.
    A directory can be asked for exact names only: other spellings are known from the scan and the watch, which report every
    ticket here. The usual spelling is looked for on the disk as well, since an event may be late or lost.
    """

    def __init__(self, inbox: Path, *, enabled: bool = True) -> None:
        self._inbox = inbox
        self.enabled = enabled  # whether they are followed
        self._seen: dict[str, _Seen] = {}
        self._spellings: dict[str, set[str]] = {}  # file names by folder and case-folded stem

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._seen))

    def observe(self, name: str, signature: Signature | None, now: float) -> None:
        """Record a ticket; the quiet time of a new or changed one starts now."""
        seen = self._seen.get(name)
        if seen is None:
            spellings = self._spellings.get(_key(*_parted(name)), set())
            if len(self._seen) >= TRACKED_MAX or len(spellings) >= SPELLINGS_MAX:
                return
            self._seen[name] = _Seen(signature, now)
            spellings.add(names.split(name)[1])
            self._spellings[_key(*_parted(name))] = spellings
        elif seen.signature != signature:
            self._seen[name] = _Seen(signature, now)

    def touch(self, name: str, now: float) -> None:
        """Start the quiet time of a ticket again, because an event named it."""
        if seen := self._seen.get(name):
            seen.quiet_since = now

    def forget(self, name: str) -> None:
        """Forget a ticket that was removed."""
        if self._seen.pop(name, None) is not None:
            key = _key(*_parted(name))
            self._spellings[key].discard(names.split(name)[1])
            if not self._spellings[key]:
                del self._spellings[key]

    def read(self, name: str) -> tuple[Ticket, ...]:
        """Read the tickets of an upload, those of outer folders first and its own last; bad ones list their problems."""
        found = []
        for folders, stem, is_own in _levels(name):
            tickets = [ticket for file in self._files(folders, stem) if (ticket := self._read(folders, file))]
            if is_own:
                tickets = self._own(folders, stem, tickets)
            if len(tickets) > 1:
                tickets = [_ambiguous(tickets, "recording" if is_own else "folder")]
            elif is_own:
                tickets = [replace(each, suffix=os.path.splitext(each.name)[1]) for each in tickets]
            found += tickets
        return tuple(found)

    def unsettled(self, name: str, now: float, options: IntakeOptions, leases: Leases) -> str | None:
        """Return the reason if an upload must wait for a ticket that is being written."""
        if not self.enabled:
            return None
        for folders, stem, _ in _levels(name):
            for file in self._files(folders, stem):
                if self._is_unsettled(folders, file, now, options, leases):
                    return f"waiting for its ticket {printable(file)}, which is being written"
        return None

    def _is_unsettled(
        self, folders: tuple[str, ...], file: str, now: float, options: IntakeOptions, leases: Leases
    ) -> bool:
        """Whether a ticket may be half written: it is open for writing or changed a moment ago."""
        try:
            with Folder(self._inbox, folders) as folder:
                fd = _open(folder, file)
                try:
                    writer = leases.has_writer(folder, fd)
                    signature = Signature.of(os.fstat(fd))
                finally:
                    os.close(fd)
        except OSError:
            return False
        name = names.join(folders, file)
        self.observe(name, signature, now)
        needed_seconds = options.settle_seconds if writer is None else options.settle_seconds_proven
        seen = self._seen.get(name)
        return bool(writer) or (seen is not None and now - seen.quiet_since < needed_seconds)

    def _files(self, folders: tuple[str, ...], stem: str) -> list[str]:
        """List the possible names of a ticket for this recording or folder."""
        usual = {stem + suffix for suffix in SUFFIXES}
        return sorted(usual | self._spellings.get(_key(folders, stem), set()))

    def _own(self, folders: tuple[str, ...], recording: str, tickets: list[Ticket]) -> list[Ticket]:
        """Leave out tickets of another recording, whose name differs from this one's only in case."""
        stems = {ticket.name: _parted(ticket.name)[1] for ticket in tickets}
        if exact := [ticket for ticket in tickets if stems[ticket.name] == recording]:
            return exact
        try:
            with Folder(self._inbox, folders) as folder:
                return [ticket for ticket in tickets if not folder.exists(stems[ticket.name])]
        except OSError:
            return []

    def _read(self, folders: tuple[str, ...], file: str) -> Ticket | None:
        """Read one ticket; None if there is none."""
        name = names.join(folders, file)
        try:
            with Folder(self._inbox, folders) as folder:
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
        return replace(parse(name, data), signature=Signature.of(status))


def _levels(name: str) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """Yield the places where an upload may have a ticket, the least specific first."""
    folders, file = names.split(name)
    for depth in range(len(folders) + 1):
        yield folders[:depth], STEM_OF_FOLDER, False
    yield folders, file, True


def _parted(name: str) -> tuple[tuple[str, ...], str]:
    """Split a ticket's name into its folders and its name without suffix."""
    folders, file = names.split(name)
    return folders, os.path.splitext(file)[0]


def _key(folders: tuple[str, ...], stem: str) -> str:
    return names.join(folders, stem.casefold())


def _ambiguous(tickets: list[Ticket], what: str) -> Ticket:
    """Make a bad ticket that stands for several tickets of the same recording or folder."""
    first, *others = tickets
    also = " and ".join(printable(names.split(other.name)[1]) for other in others[:NAMED_MAX])
    also += f" and {len(others) - NAMED_MAX} more" if len(others) > NAMED_MAX else ""
    return Ticket(
        first.name,
        problems=(f"the same {what} has the ticket {also} as well, and only one can count",),
        hint="keep one of them in the inbox and remove the rest, then move the recording back there from failed/",
    )


def _open(folder: Folder, file: str) -> int:
    return os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder.fd)


def parse(name: str, data: bytes) -> Ticket:
    """Parse a ticket without checking its keys and values; whatever the bytes are, nothing is raised."""
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
        return Ticket(name, problems=(f"{where}not valid YAML: {_said(error)}",))


class _Problem(Exception):
    """Raised if a ticket is not one flat mapping."""


class _Loader(yaml.SafeLoader):
    """Reads scalars as YAML 1.2 does: `no` is a language and not false, `12:30` is no number, a date is text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # as PyYAML wants it


for _tag, _text, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_text})$"), _first)


def _check_shape(text: str) -> None:
    """Refuse aliases, tags, nesting and a second document, which could grow or run code, before any object is built."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        mark: Any = event.start_mark
        line = mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _Problem(f"line {line}: anchors and aliases are not allowed")
        if getattr(event, "tag", None) is not None:
            raise _Problem(f"line {line}: tags are not allowed")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth != (1 if isinstance(event, yaml.MappingStartEvent) else 2):
                raise _Problem(f"line {line}: only `key: value` lines are allowed, with a scalar or a list as value")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent) and not depth and event.value:
            raise _Problem(f"line {line}: only `key: value` lines are allowed")
        if documents > 1:
            raise _Problem(f"line {line}: only one document is allowed")


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
                raise _Problem(f"line {line}: {printable(key)} is given twice")
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
        raise _Problem(f"line {node.start_mark.line + 1}: a lone half of a surrogate pair is not a character")
    if isinstance(value, float) and not math.isfinite(value):
        raise _Problem(f"line {node.start_mark.line + 1}: the number is too large")
    return value


def _said(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return printable(" ".join(str(problem).split()))
