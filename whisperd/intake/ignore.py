"""Which names in the inbox are never uploads: temporary and side files of the programs that people upload with."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Every name that starts with a dot is ignored too: rsync's and gvfs' temporary files, .nfs*, AppleDouble (._*), .DS_Store.
DEFAULT_PATTERNS = (
    "*.filepart",  # WinSCP
    "*.part",  # KDE, Firefox, yt-dlp, Nextcloud
    "*.partial",  # rclone
    "*.crdownload",  # Chromium
    "*.opdownload",  # Opera
    "*.download",  # Safari (a directory)
    "*.aria2",
    "*.!qB",  # qBittorrent
    "*.!sync",  # Resilio
    "*.bts",
    "*.ytdl",
    "*.writing",  # Spring
    "*.camelLock",
    "*.tmp",
    "*.temp",
    "*.bak",
    "*.swp",
    "*.lock",
    "*~",
    "~$*",  # Office
    "#*#",
    "~syncthing~*.tmp",
    "__MACOSX",
    "Icon\r",
    "desktop.ini",
    "Thumbs.db",
    "$RECYCLE.BIN",
    "System Volume Information",
    "@eaDir",  # Synology
    "#recycle",
    "#snapshot",
    "@Recycle",  # QNAP
    "lost+found",
)


_PLAIN = re.compile(r"[^*?\[\]]+")
_EXTENSION = re.compile(r"\*\.([^*?\[\].]+)")


class Ignore:
    """Matches single names, of files and of folders, without regard to case.

    Nearly all patterns are an extension or a whole name: those are looked up in a set, which a scan of many files needs.
    """

    def __init__(self, extra: Iterable[str] = ()) -> None:
        patterns = [pattern.lower() for pattern in (*DEFAULT_PATTERNS, *extra)]
        self._names = {pattern for pattern in patterns if _PLAIN.fullmatch(pattern)}
        self._extensions = {found[1] for pattern in patterns if (found := _EXTENSION.fullmatch(pattern))}
        rest = [p for p in patterns if not _PLAIN.fullmatch(p) and not _EXTENSION.fullmatch(p)]
        self._pattern = re.compile("|".join(map(fnmatch.translate, rest)))

    def __call__(self, name: str) -> bool:
        """Whether a file or folder of this name is never an upload, nor contains one."""
        if name.startswith("."):
            return True
        name = name.lower()
        if name in self._names or self._pattern.match(name):
            return True
        _, dot, extension = name.rpartition(".")
        return bool(dot) and extension in self._extensions
