"""Knows the names in the inbox that are never uploads: temporary and side files of the programs that people use."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# What programs add to the name of X while they write it: it is no upload itself, and X waits while it is there.
UNFINISHED = (
    ".filepart",  # WinSCP
    ".part",  # KDE, Firefox, yt-dlp, Transmission, JDownloader, Nextcloud
    ".partial",  # rclone, Internet Explorer
    ".upload",
    ".uploading",
    ".crdownload",  # Chromium
    ".opdownload",  # Opera
    ".download",  # Safari (a directory)
    ".downloading",  # Baidu
    ".dtapart",  # DownThemAll
    ".fdmdownload",  # Free Download Manager
    ".wkdownload",  # WebKit
    ".aria2",
    ".aria2__temp",
    ".lftp-pget-status",  # lftp
    ".st",  # axel
    ".ytdl",  # yt-dlp
    ".!qB",  # qBittorrent
    ".!ut",  # uTorrent
    ".!bt",  # BitTorrent
    ".bc!",  # BitComet
    ".az!",  # Vuze
    ".jc!",  # FlashGet
    ".td",  # Thunder
    ".xltd",
    ".!sync",  # Resilio
    ".writing",  # Spring
    ".camelLock",
    ".lock",
    ".tmp",
)
# Every name that starts with a dot is ignored too: rsync's, lftp's and gvfs' temporary files, .nfs*, AppleDouble (._*).
DEFAULT_PATTERNS = (
    *(f"*{suffix}" for suffix in UNFINISHED),
    "*.bts",  # Resilio
    "*.temp",
    "*.bak",
    "*.swp",
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
    "_voices",  # samples of known voices, which workers read where they are
)

# Documents, subtitles, pictures, archives and programs, which people keep beside their recordings.
_NO_RECORDINGS = """
.txt .md .rtf .pdf .doc .docx .odt .xls .xlsx .ods .csv .ppt .pptx .odp .epub .htm .html .eml .vcf .ics
.srt .vtt .ass .lrc .nfo .cue .jpg .jpeg .png .gif .bmp .tif .tiff .svg .webp .heic .heif .avif
.zip .rar .7z .tar .gz .bz2 .xz .json .xml .ini .log .url .lnk .exe .msi .dmg
"""
NO_RECORDINGS = frozenset(_NO_RECORDINGS.split())
LIKE_RECORDINGS = frozenset({".webp", ".heic", ".heif", ".avif"})  # pictures in a container that recordings have too

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
        """Whether a file or folder of this name is never an upload and contains none."""
        if name.startswith("."):
            return True
        name = name.lower()
        if name in self._names or self._pattern.match(name):
            return True
        _, dot, extension = name.rpartition(".")
        return bool(dot) and extension in self._extensions
