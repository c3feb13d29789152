"""Finds the upload that a name on the command line means, and describes it, for `status NAME` and `logs NAME`.

Where an original is decides what is said of it. People can write into the folder of the status files, so that their values
are checked and escaped for the terminal.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from whisperd.core.display import did_you_mean, printable
from whisperd.core.errors import SpoolError
from whisperd.core.job import UNDER_WAY, Status
from whisperd.intake.scan import scan
from whisperd.intake.ticket import is_folder_ticket, is_ticket
from whisperd.spool import job_directory, names, status_file
from whisperd.spool.durable import Folder
from whisperd.spool.layout import Layout, files
from whisperd.spool.status_file import EXPLAINED_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from whisperd.core.job import Job
    from whisperd.intake.ignore import Ignore

CANCELLED = "cancelled"  # the code of the failure of a cancelled job, and its state here
JOB_ID = re.compile(r"\d{8}T\d{12}-[0-9a-f]{6}")
SUGGESTED_FROM_MAX = 10_000  # comparing more names takes seconds
LISTED_MAX = 20


class Located(NamedTuple):
    """One upload: the folder of the spool that has its original (`outbox`: only a status file is left), and its name there."""

    room: str
    place: str
    job: Job | None = None
    refusal: str | None = None
    size_bytes: int | None = None

    @property
    def path(self) -> str:
        """The place with its folder, such as `done/alice/a.mp3`; unlike the place alone it means one upload."""
        return f"{self.room}/{self.place}"

    def document(self, layout: Layout) -> dict[str, Any] | None:
        """Its status file; None if there is none that is about this upload."""
        if self.room == "inbox":
            explained = status_file.StatusFiles(layout).explanation_of(self.place)
            return read(layout, explained) if explained else None
        found = read(layout, self.place)
        if found is None or (self.job and found["id"] != self.job.id):
            return None
        ended = {"done": Status.COMPLETED, "failed": Status.FAILED}.get(self.room)
        return found if found["id"] and ended in {None, found["status"]} else None


def find(layout: Layout, ignore: Ignore, given: str) -> Located:
    """Find the one upload that is meant.

    Args:
        layout: the spool.
        ignore: names that are no uploads.
        given: the id of a job, a path in the spool or its inbox, or a name without its folders.

    Raises:
        SpoolError: there is none, or there are several, which are listed.
    """
    wanted = given.removeprefix(f"{layout.root}/").removeprefix("./")
    entries = list(_entries(layout, ignore))
    found = next(filter(None, (_matching(layout, entries, wanted, way) for way in WAYS)), [])
    if not found:
        known = {each.place for each in itertools.islice(entries, SUGGESTED_FROM_MAX)}
        short = {names.split(place)[1]: place for place in known}
        raise SpoolError(
            f"{printable(given)}: there is no upload or job of this name{printable(did_you_mean(wanted, {*known, *short}))}",
            hint="`whisperd status` lists what there is",
        )
    if len(found) > 1:
        lines = [
            f"  {printable(each.path)}{f', job {job_id}' if (job_id := id_of(layout, each)) else ''}" for each in found
        ]
        more = [f"  ... and {len(lines) - LISTED_MAX} more"] if len(lines) > LISTED_MAX else []
        listed = "\n".join(lines[:LISTED_MAX] + more)
        raise SpoolError(f"{printable(given)} may be any of these, name one with its folder or by its id:\n{listed}")
    return found[0]


def id_of(layout: Layout, entry: Located) -> str | None:
    """The id of the job; None while it is in the inbox, or if its status file is missing."""
    return entry.job.id if entry.job else text(entry.document(layout) or {}, "id")


def state_of(entry: Located, document: dict[str, Any]) -> str:
    """One word: waiting, queued, running, completed, failed or cancelled."""
    if entry.room == "inbox":
        return "waiting"
    status = document.get("status")
    if entry.room == ".work" or status in UNDER_WAY:
        return "running" if status == Status.IN_PROGRESS else "queued"
    if entry.room == "done" or status == Status.COMPLETED:
        return "completed"
    return CANCELLED if error_of(document)["code"] == CANCELLED else "failed"


def error_of(document: dict[str, Any]) -> dict[str, str | None]:
    """Code, message and hint of the error in a status file."""
    error = document.get("error")
    return {key: text(error if isinstance(error, dict) else {}, key) for key in ("code", "message", "hint")}


def read(layout: Layout, place: str) -> dict[str, Any] | None:
    """Read the status file of a place."""
    folders, file = names.split(place)
    with contextlib.suppress(OSError), Folder(layout.outbox, folders) as outbox:
        return status_file.decode(outbox.read(names.status_file(file)))
    return None


def status_path(place: str) -> str:
    """The path of the status file of a place, relative to the outbox."""
    folders, file = names.split(place)
    return names.join(folders, names.status_file(file))


def text(document: dict[str, Any], key: str) -> str | None:
    """A text that is safe for a terminal; names in status files have their backslashes doubled already."""
    value = document.get(key)
    return printable(value).replace("\\\\", "\\") if isinstance(value, str) else None


def number(document: dict[str, Any], key: str) -> float | None:
    """A number that has digits."""
    value = document.get(key)
    return value if isinstance(value, int | float) and abs(value) < 1e15 else None  # noqa: PLR2004  # inf has no digits


def originals(top: Path) -> list[str]:
    """The names of all originals in a folder of the spool, without the tickets beside them."""
    os.listdir(top)  # raises if it cannot be read, which must not look like an empty folder
    return sorted(names.join(*found) for found in files(top) if found and not is_ticket(found[1]))


def jobs(layout: Layout) -> Iterator[Job]:
    """Read every job that has not ended.

    Raises:
        PermissionError: this user may not.
    """
    for job_id in sorted(os.listdir(layout.work)):
        with contextlib.suppress(OSError), Folder(layout.work, (job_id,)) as own:
            if (job := job_directory.load_job(own)) is not None:
                yield job


def _entries(layout: Layout, ignore: Ignore) -> Iterator[Located]:
    """Everything that has an original in the spool, then what only a status file is left of."""
    seen = set()
    for found in scan(layout.inbox, ignore):
        if found and not is_folder_ticket(found.name):
            size = found.signature.size if found.signature else None
            yield Located("inbox", found.name, None, found.refusal, size)
    with contextlib.suppress(PermissionError):  # .work is private: other users see what the status files say
        for job in jobs(layout):
            seen.add(status_path(job.place))
            yield Located(".work", job.place, job)
    for room, top in (("done", layout.done), ("failed", layout.failed)):
        for place in originals(top):
            seen.add(status_path(place))
            yield Located(room, place)
    for folders, file in filter(None, status_file.find_all(layout)):
        if names.join(folders, file) not in seen:
            yield Located("outbox", names.join(folders, file.removesuffix(names.STATUS_SUFFIX)))


def _has_id(layout: Layout, entry: Located, wanted: str) -> bool:
    return JOB_ID.fullmatch(wanted) is not None and id_of(layout, entry) == wanted


def _has_path(_: Layout, entry: Located, wanted: str) -> bool:
    return wanted.removesuffix(names.STATUS_SUFFIX) in {entry.path, printable(entry.path), f"outbox/{entry.place}"}


def _has_name(layout: Layout, entry: Located, wanted: str) -> bool:
    if wanted in {entry.place, printable(entry.place)} or (entry.job and wanted == entry.job.name):
        return True
    folders, file = names.split(wanted)
    if not any(entry.place == names.join(folders, names.numbered(file, each)) for each in range(2, EXPLAINED_MAX + 1)):
        return False
    document = entry.document(layout)
    return document is not None and document.get("name") == printable(wanted)


def _has_file_name(_: Layout, entry: Located, wanted: str) -> bool:
    place = entry.job.name if entry.job else entry.place
    return any(each.endswith(f"/{wanted}") for each in (place, printable(place)))


WAYS = (_has_id, _has_path, _has_name, _has_file_name)  # the first that finds something decides


def _matching(
    layout: Layout, entries: list[Located], wanted: str, matches: Callable[[Layout, Located, str], bool]
) -> list[Located]:
    found = [entry for entry in entries if matches(layout, entry, wanted)]
    here = {entry.place for entry in entries if entry.room == "inbox"} | {each.job.name for each in entries if each.job}
    return [entry for entry in found if entry.room != "outbox" or _is_of_its_own(layout, entry, here)]


def _is_of_its_own(layout: Layout, entry: Located, here: set[str]) -> bool:
    """Whether a status file without an original is about something that is nowhere else: its original was removed."""
    document = entry.document(layout)
    if document is None:
        return False
    return document["status"] != Status.FAILED or entry.place not in here  # otherwise it was moved back into the inbox
