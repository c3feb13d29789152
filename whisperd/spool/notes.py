"""Notes: sidecars without an id, on files that still lie in the inbox. Those that a daemon left which then died go stale."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from whisperd.job import Status, printable
from whisperd.spool import names, sidecar
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.spool.layout import Layout


def sidecars(layout: Layout) -> Iterator[tuple[tuple[str, ...], str]]:
    """The folders and the file name of everything in the outbox that is called like a sidecar."""
    for top, _, files in os.walk(layout.outbox):
        relative = os.path.relpath(top, layout.outbox)
        folders = () if relative == "." else tuple(relative.split("/"))
        yield from ((folders, file) for file in files if file.endswith(names.SIDECAR_SUFFIX))


def stale(layout: Layout) -> Iterator[str | None]:
    """Where notes stand on files that are not in the inbox any more, one step for each sidecar that is read."""
    for folders, file in sidecars(layout):
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


def find(layout: Layout, name: str, most: int) -> str | None:
    """Where the note on a file stands, under one of its first `most` numbered names."""
    folders, file = names.split(name)
    with contextlib.suppress(OSError), Folder(layout.outbox, folders) as outbox:
        for number in range(1, most + 1):
            numbered = names.numbered(file, number)
            document = sidecar.decode(outbox.read(names.sidecar(numbered)))
            if document and document["id"] is None and document.get("source") == printable(f"inbox/{name}"):
                return names.join(folders, numbered)
    return None
