"""Finds, reads and parses tickets: files of options that users without a shell put beside their recordings.

`interview.mp3.yaml` is for interview.mp3, `_whisperd.yaml` for the recordings of its folder and of those in it; `.yml` is
as good, and case does not matter. `interview.mp3.correction.yaml` is what the transcript page of interview.mp3 saves. Anybody who may write into the inbox can write a ticket: it is read by descriptor, bounded
in size, and holds one YAML mapping of plain scalars, lists of them and mappings of texts, without aliases, tags or a second
document. A file of a transcript page may also have lists of mappings, and may be larger if it is JSON, which takes no time.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import yaml

from whisperd.core.correction import KEY, is_correction, recording_of
from whisperd.core.display import Position, printable
from whisperd.core.job import Signature, Ticket
from whisperd.intake.upload import TRACKED_MAX
from whisperd.spool import names
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whisperd.intake.writers import Leases
    from whisperd.settings.sections import IntakeOptions

SUFFIXES: Final = (".yaml", ".yml")
STEM_OF_FOLDER: Final = "_whisperd"
BYTES_MAX = 16 << 10
JSON_BYTES_MAX = 512 << 10  # of a file of a transcript page: every segment of five hours corrected
DEPTH_MAX = 2  # of a value: a list or mapping in the mapping of all
SPELLINGS_MAX = 50  # of one name: each is opened at each look at the recording, and a long name has millions
LOOK_SECONDS = 0.25  # until a ticket that had not settled is looked at again
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
        "a recording that came before its ticket was taken without it: move it back here to have it transcribed again, or, "
        "to have its transcripts corrected without that, add the line `correction: true`"
    )


@dataclass(slots=True)
class _Seen:
    """The last known state of a ticket; times are on the monotonic clock.

    `verdict` says what is wrong with it, as it is now.
    """

    signature: Signature | None
    quiet_since: float
    verdict: str = ""


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
        self._unread: dict[str, float] = {}  # those that may be corrections, and when each is looked at
        self._early: set[str] = set()  # corrections of jobs that are not completed

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
        else:
            return
        self._early.discard(name)
        if not is_folder_ticket(name):
            self._unread[name] = now

    def touch(self, name: str, now: float) -> None:
        """Start the quiet time of a ticket again, because an event named it."""
        if seen := self._seen.get(name):
            seen.quiet_since = now

    def forget(self, name: str) -> None:
        """Forget a ticket that was removed."""
        self._unread.pop(name, None)
        self._early.discard(name)
        if self._seen.pop(name, None) is not None:
            key = _key(*_parted(name))
            self._spellings[key].discard(names.split(name)[1])
            if not self._spellings[key]:
                del self._spellings[key]

    @property
    def has_unread(self) -> bool:
        """Whether a ticket may be a correction that can be made now."""
        return self.enabled and not self._unread.keys() <= self._early

    def next_at(self) -> float:
        """Return the time when a ticket is to be looked at."""
        return min(self._unread.values(), default=float("inf")) if self.enabled else float("inf")

    def corrections(self, now: float, options: IntakeOptions, leases: Leases) -> Iterator[Ticket | None]:
        """Yield the settled tickets that correct completed jobs, and have changed or are to be tried again; None for other steps."""
        if not self.enabled:
            return
        for name in [name for name, at in self._unread.items() if at <= now]:
            folders, file = names.split(name)
            if self._is_unsettled(folders, file, now, options, leases):
                self._unread[name] = now + LOOK_SECONDS
                yield None
                continue
            self._unread.pop(name, None)
            self._early.discard(name)
            ticket = self._read(folders, file)
            if ticket is not None and ticket.problems:
                self.judge(name, f"this ticket cannot be followed: {'; '.join(ticket.problems)}")
            yield ticket if ticket is not None and is_correction(ticket.values) else None

    def judge(self, name: str, verdict: str, *, again_at: float | None = None, is_early: bool = False) -> None:
        """Record what is wrong with a ticket until it changes, and when it is tried again though it does not."""
        if (seen := self._seen.get(name)) is None:
            return
        seen.verdict = verdict
        if again_at is not None:
            self._unread.setdefault(name, again_at)
        if is_early:
            self._early.add(name)

    def verdict(self, name: str) -> str:
        """Return what is wrong with a ticket; empty if nothing is known to be."""
        seen = self._seen.get(name)
        return seen.verdict if seen else ""

    def job_completed(self, now: float) -> None:
        """Look again at the corrections that came before the end of their job."""
        for name in self._early:
            self._unread[name] = now
        self._early.clear()

    def read(self, name: str) -> tuple[Ticket, ...]:
        """Read the tickets of an upload, those of outer folders first and its own last; bad ones list their problems.

        A correction is about a completed job of this name, and not about the upload.
        """
        found = []
        for folders, stem, is_own in _levels(name):
            tickets = [ticket for file in self._files(folders, stem) if (ticket := self._read(folders, file))]
            if is_own:
                tickets = self._own(folders, stem, [each for each in tickets if not is_correction(each.values)])
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
                    data = os.read(fd, (JSON_BYTES_MAX if recording_of(file) else BYTES_MAX) + 1)
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
    is_of_page = recording_of(names.split(name)[1]) is not None
    if is_of_page and data.lstrip()[:1] == b"{" and len(data) <= JSON_BYTES_MAX:
        with contextlib.suppress(ValueError, RecursionError):  # then it may still be YAML in braces
            values = json.loads(data, object_pairs_hook=_without_twins, parse_constant=_no_number)
            return Ticket(name, values={KEY: True} | {key: _frozen(value) for key, value in values.items()})
    if is_of_page and len(data) > BYTES_MAX:
        return Ticket(
            name,
            problems=(f"has more than {BYTES_MAX >> 10} kB and is no JSON, or more than {JSON_BYTES_MAX >> 10} kB",),
        )
    if len(data) > BYTES_MAX:
        return Ticket(name, problems=(f"has more than {BYTES_MAX >> 10} kB",))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Ticket(name, problems=(f"is not UTF-8 (byte {error.start})",))
    try:
        _check_shape(text, DEPTH_MAX + is_of_page)
        return _mapping(name, text, {KEY: True} if is_of_page else {})
    except _Problem as error:
        return Ticket(name, problems=(str(error),))
    except yaml.YAMLError as error:
        mark: Any = getattr(error, "problem_mark", None)
        where = f"{_position(mark)}: " if mark is not None else ""
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


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key is given twice")
    return values


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _frozen(value: Any) -> Any:
    """A value of JSON as one of YAML is given."""
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    if isinstance(value, dict):
        return {_frozen(key): _frozen(each) for key, each in value.items()}
    if isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
        raise ValueError("a lone half of a surrogate pair is not a character")
    return value


def _check_shape(text: str, depth_max: int) -> None:
    """Refuse aliases, tags, nesting and a second document, which could grow or run code, before any object is built."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        mark: Any = event.start_mark
        where = _position(mark)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _Problem(f"{where}: anchors and aliases are not allowed")
        if getattr(event, "tag", None) is not None:
            raise _Problem(f"{where}: tags are not allowed")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > depth_max or (depth == 1 and not isinstance(event, yaml.MappingStartEvent)):
                raise _Problem(
                    f"{where}: only `key: value` lines are allowed, with a scalar, a list or a mapping as value"
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent) and not depth and event.value:
            raise _Problem(f"{where}: only `key: value` lines are allowed")
        if documents > 1:
            raise _Problem(f"{where}: only one document is allowed")


def _mapping(name: str, text: str, implied: dict[str, Any]) -> Ticket:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        values: dict[str, Any] = {**implied}
        positions: dict[str, Position] = {}
        for key, where, value_node in _entries(node) if isinstance(node, yaml.MappingNode) else ():
            positions[key] = where
            values[key] = _value(loader, value_node)
    finally:
        loader.dispose()
    return Ticket(name, values=values, positions=positions)


def _entries(node: yaml.MappingNode) -> Iterator[tuple[str, Position, yaml.Node]]:
    """Yield key, position and value of each entry of a mapping."""
    seen = set()
    for key_node, value_node in node.value:
        where = _position(key_node.start_mark)
        if not isinstance(key_node, yaml.ScalarNode):
            raise _Problem(f"{where}: a key must be a word")
        key = str(key_node.value)
        if key in seen:
            raise _Problem(f"{where}: {printable(key)} is given twice")
        seen.add(key)
        yield key, where, value_node


def _value(loader: _Loader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return tuple(_value(loader, each) for each in node.value)
    if isinstance(node, yaml.MappingNode):  # of texts: `zwei: 2` replaces a word by a digit
        entries = [*_entries(node)]
        if nested := [where for _, where, each in entries if not isinstance(each, yaml.ScalarNode)]:
            raise _Problem(f"{nested[0]}: a text is expected")
        texts = {key: (where, str(each.value)) for key, where, each in entries}
        for key, (where, text) in texts.items():
            if _SURROGATE.search(key + text):
                raise _Problem(f"{where}: a lone half of a surrogate pair is not a character")
        return {key: text for key, (_, text) in texts.items()}
    try:
        value = loader.construct_object(node)
    except ValueError as error:  # a number of thousands of digits
        raise _Problem(f"{_position(node.start_mark)}: {error}") from error
    if isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
        raise _Problem(f"{_position(node.start_mark)}: a lone half of a surrogate pair is not a character")
    if isinstance(value, float) and not math.isfinite(value):
        raise _Problem(f"{_position(node.start_mark)}: the number is too large")
    return value


def _position(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1)


def _said(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return printable(" ".join(str(problem).split()))
