"""The names of a job's files, and the `-2` rule that finds names for all of them that are not taken.

A name is a path relative to the inbox, parts joined by "/"; bytes that are not UTF-8 are kept as surrogate escapes (PEP 383).
A place is the path, relative to outbox, done and failed, under which all files of one job go: the job's name, or the name
with a number. Nothing here reserves a name on disk: a rename that never overwrites decides, and the job then chooses again.
"""

from __future__ import annotations

import errno
import hashlib
import os
from typing import TYPE_CHECKING

from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from whisperd.spool.layout import Layout

NAME_MAX = 255  # bytes in one path component, the limit of nearly every filesystem
EXTENSION_MAX = 32  # bytes; what follows a dot and is longer belongs to the stem
STATUS_SUFFIX = ".status.json"
PARTIAL = "partial.txt"  # the extension of a job's text so far, a kind of output beside the formats
OVERVIEW_PAGE = "outbox/index.html"  # the daemon's own: no job may have this path, even while the page is turned off
TRIED_IN_TURN = 8  # numbers; larger steps follow


def split(name: str) -> tuple[tuple[str, ...], str]:
    """Split a name into the folders above the file and the file's own name."""
    *folders, file = name.split("/")
    return tuple(folders), file


def join(folders: tuple[str, ...], file: str) -> str:
    """Join what `split` has split."""
    return "/".join((*folders, file))


def stem_and_extension(file: str) -> tuple[str, str]:
    """Split a file's name like `("interview", ".mp3")`; the extension is empty where it is missing or too long to be one."""
    stem, extension = os.path.splitext(file)
    return (stem, extension) if len(os.fsencode(extension)) <= EXTENSION_MAX else (file, "")


def numbered(file: str, number: int) -> str:
    """Name the second file called `interview.mp3`: `interview-2.mp3`; the first keeps its name."""
    if number == 1:
        return file
    stem, extension = stem_and_extension(file)
    return fit(stem, f"-{number}{extension}")


def first_free(is_taken: Callable[[int], bool]) -> int:
    """Find a number from 1 on that is free and follows one that is taken.

    The first few are tried in turn, so a gap among them is filled. Then the steps double, and halve again: thousands of
    files of one name would take quadratic time if each began at 1.
    """
    for number in range(1, TRIED_IN_TURN):
        if not is_taken(number):
            return number
    taken, free = TRIED_IN_TURN - 1, TRIED_IN_TURN
    while is_taken(free):
        taken, free = free, free * 2
    while free - taken > 1:
        middle = (taken + free) // 2
        if is_taken(middle):
            taken = middle
        else:
            free = middle
    return free


def output(file: str, extension: str) -> str:
    """Name the transcript of `file` in one format: the stem with that extension."""
    return fit(stem_and_extension(file)[0], f".{extension}")


def status_file(file: str) -> str:
    """Name the status file of `file`: the whole name with `.status.json`."""
    return fit(file, STATUS_SUFFIX)


def original(file: str) -> str:
    """Name the upload inside its job's directory: `original` with the upload's extension, where that is harmless."""
    extension = stem_and_extension(file)[1].lower()
    return "original" + (extension if extension[1:].isascii() and extension[1:].isalnum() else "")


def ticket(file: str, suffix: str) -> str:
    """Name the ticket that belongs to `file` alone; `suffix` is `.yaml` or `.yml`, in any case."""
    return fit(file, suffix)


def fit(start: str, end: str) -> str:
    """Join `start + end`, shortened in the middle and marked by a hash where a directory entry could not hold it.

    The cut is between characters, so the result is valid UTF-8 wherever `start` is; the hash keeps two long names apart.
    """
    if len(os.fsencode(start + end)) <= NAME_MAX:
        return start + end
    mark = "~" + hashlib.sha256(os.fsencode(start)).hexdigest()[:8]
    while len(os.fsencode(start + mark + end)) > NAME_MAX:
        start = start[:-1]
    return start + mark + end


class Naming:
    """Chooses the place of each job, and remembers the places of the jobs that have not ended.

    Args:
        layout: the spool.
        is_superseded: whether the status file of a place may be replaced by that of a new job.
    """

    def __init__(self, layout: Layout, is_superseded: Callable[[str], bool]) -> None:
        self._layout = layout
        self._is_superseded = is_superseded
        self._held: dict[str, frozenset[str]] = {}  # job id -> every path it may write
        self._holders: dict[str, str] = {}  # the same by path: with thousands of jobs a search would take too long

    def hold(self, job_id: str, place: str, kinds: tuple[str, ...], ticket: str = "") -> None:
        """Promise a place to a job, which gives up the one that it had."""
        self.drop(job_id)
        self._held[job_id] = paths = _paths(place, kinds, ticket)
        self._holders.update(dict.fromkeys(paths, job_id))

    def drop(self, job_id: str) -> None:
        """Forget the place of a job that has ended: its files show that it is taken."""
        for path in self._held.pop(job_id, ()):
            if self._holders.get(path) == job_id:
                del self._holders[path]

    def is_held(self, path: str) -> bool:
        """Whether a path relative to the root is promised to a job that has not ended."""
        return path in self._holders

    def choose(self, job_id: str, name: str, kinds: tuple[str, ...], ticket: str = "") -> str:
        """Find a place for `name` where nothing exists and no other job is going, and promise it to the job.

        Args:
            job_id: the job.
            name: path relative to the inbox.
            kinds: extensions of what will be written: the formats, and `PARTIAL`.
            ticket: the suffix of the job's own ticket, which will lie beside the original; empty: it has none.

        Raises:
            OSError: a folder cannot be read.
        """
        folders, file = split(name)
        folders = self._free_folders(folders)

        def is_taken(number: int) -> bool:
            place = join(folders, numbered(file, number))
            paths = _paths(place, kinds, ticket)
            is_held = any(self._holders.get(path, job_id) != job_id for path in paths)
            return is_held or any(self._is_taken(path, place) for path in paths)

        place = join(folders, numbered(file, first_free(is_taken)))
        self.hold(job_id, place, kinds, ticket)
        return place

    def _free_folders(self, folders: tuple[str, ...]) -> tuple[str, ...]:
        """The mirrored folders, each renamed where a file or a symlink has its name (`alice` -> `alice-2`)."""
        chosen: tuple[str, ...] = ()
        tops = (self._layout.outbox, self._layout.done, self._layout.failed)
        for part in folders:

            def is_taken(number: int, above: tuple[str, ...] = chosen, part: str = part) -> bool:
                return any(_is_blocked(top, above, numbered(part, number)) for top in tops)

            chosen = (*chosen, numbered(part, first_free(is_taken)))
        return chosen

    def _is_taken(self, path: str, place: str) -> bool:
        if path == OVERVIEW_PAGE:
            return True
        if not self._layout.has(path):
            return False
        # only a status file may replace a status file: a transcript is moved there, and a move never overwrites
        return path != _status_path(place) or not self._is_superseded(place)


def _paths(place: str, kinds: tuple[str, ...], ticket_suffix: str) -> frozenset[str]:
    folders, file = split(place)
    outputs = {f"outbox/{join(folders, output(file, kind))}" for kind in kinds}
    ends = [place, join(folders, ticket(file, ticket_suffix))] if ticket_suffix else [place]
    originals = {f"{top}/{end}" for top in ("done", "failed") for end in ends}
    return frozenset(outputs | originals | {_status_path(place)})


def _status_path(place: str) -> str:
    folders, file = split(place)
    return f"outbox/{join(folders, status_file(file))}"


def _is_blocked(top: Path, above: tuple[str, ...], folder: str) -> bool:
    """Whether something that is no folder has the name of a folder.

    Raises:
        OSError: the folders above cannot be read; no other number would help.
    """
    try:
        with Folder(top, above) as parent:
            if not parent.exists(folder):
                return False
    except FileNotFoundError:
        return False
    try:
        with Folder(top, (*above, folder)):
            return False
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:
            return True
        raise
