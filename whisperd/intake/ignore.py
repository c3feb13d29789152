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


class Ignore:
    """Matches single names, of files and of folders, without regard to case."""

    def __init__(self, extra: Iterable[str] = ()) -> None:
        patterns = (*DEFAULT_PATTERNS, *extra)
        self._pattern = re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns), re.IGNORECASE)

    def __call__(self, name: str) -> bool:
        """Whether a file or folder of this name is never an upload, nor contains one."""
        return name.startswith(".") or self._pattern.match(name) is not None
