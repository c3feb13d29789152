"""Files beside an upload that say it is not complete: `X.part` holds X back, and where it is wished, X waits for `X.done`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whisperd.spool.durable import Folder

# Each program keeps its state, or the data yet to come, in X plus one of these while X is being written.
SUFFIXES = (
    ".part",
    ".filepart",  # WinSCP
    ".partial",
    ".crdownload",  # Chromium
    ".aria2",
    ".!qB",  # qBittorrent
    ".!sync",  # Resilio
    ".ytdl",
    ".tmp",
    ".lock",
    ".camelLock",
    ".writing",  # Spring
)


def companion(folder: Folder, file: str) -> str | None:
    """The name of a companion that holds this file back, if there is one."""
    return next((file + suffix for suffix in SUFFIXES if folder.exists(file + suffix)), None)


def missing_marker(folder: Folder, file: str, marker: str) -> str | None:
    """The name of the done marker that this file waits for; None if it is there, or none is wished (`marker` empty)."""
    return file + marker if marker and not folder.exists(file + marker) else None
