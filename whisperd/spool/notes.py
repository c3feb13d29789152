"""Notes: sidecars without an id, on files that still lie in the inbox. Those that a daemon left which then died go stale."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from whisperd.core.display import printable
from whisperd.core.job import Status
from whisperd.spool import names, sidecar
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whisperd.spool.layout import Layout

NOTES_MAX = 20  # earlier uploads of one name beside which a note still finds room


def files(top: Path) -> Iterator[tuple[tuple[str, ...], str] | None]:
    """The folders and the name of every file below a directory that its group may write to; None for each folder.

    os.walk() is no match for that: it follows a chain of a thousand folders into a RecursionError.
    """
    open_ends: list[tuple[str, ...]] = [()]
    while open_ends:
        parts = open_ends.pop()
        yield None
        with contextlib.suppress(OSError), Folder(top, parts) as folder, os.scandir(folder.fd) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    yield parts, entry.name
                elif len(parts) < names.DEPTH_MAX:  # nothing of ours is deeper
                    open_ends.append((*parts, entry.name))


def sidecars(layout: Layout) -> Iterator[tuple[tuple[str, ...], str] | None]:
    """The folders and the file name of everything in the outbox that is called like a sidecar; None for other steps."""
    for found in files(layout.outbox):
        yield found if found and found[1].endswith(names.SIDECAR_SUFFIX) else None


def stale(layout: Layout) -> Iterator[str | None]:
    """Where notes stand on files that are not in the inbox any more, one step at a time."""
    for found in sidecars(layout):
        if found is None:
            yield None
            continue
        folders, file = found
        place = names.join(folders, file.removesuffix(names.SIDECAR_SUFFIX))
        yield place if _is_stale(layout, folders, file) else None


def _is_stale(layout: Layout, folders: tuple[str, ...], file: str) -> bool:
    with contextlib.suppress(OSError), Folder(layout.outbox, folders) as outbox:
        document = sidecar.decode(outbox.read(file))
        if document and document["id"] is None and document["status"] == Status.PENDING:
            return not _is_waiting(layout, folders, str(document.get("source")).removeprefix("inbox/"))
    return False


def _is_waiting(layout: Layout, folders: tuple[str, ...], shown: str) -> bool:
    """Whether the inbox has an entry that is shown like this."""
    try:
        with Folder(layout.inbox, folders) as inbox:
            if "\\" not in shown:
                return inbox.exists(names.split(shown)[1])
            return any(printable(names.join(folders, entry)) == shown for entry in os.listdir(inbox.fd))
    except FileNotFoundError:
        return False


def find(layout: Layout, name: str) -> str | None:
    """Where the note on a file stands, under one of its numbered names."""
    folders, file = names.split(name)
    with contextlib.suppress(OSError), Folder(layout.outbox, folders) as outbox:
        for number in range(1, NOTES_MAX + 1):
            numbered = names.numbered(file, number)
            document = sidecar.decode(outbox.read(names.sidecar(numbered)))
            if document and document["id"] is None and document.get("source") == printable(f"inbox/{name}"):
                return names.join(folders, numbered)
    return None
