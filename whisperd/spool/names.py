"""How the files of a job are called: pure functions on names.

A name is a path relative to the inbox, parts joined by "/", bytes that are not UTF-8 kept as surrogate escapes (PEP 383).
"""

from __future__ import annotations

import hashlib
import os

DEPTH_MAX = (
    32  # folders in folders: each level costs an open for all below, and a chain of thousands would take minutes
)
NAME_MAX = 255  # bytes in one path component, the limit of nearly every filesystem
EXTENSION_MAX = 32  # bytes; what follows a dot and is longer belongs to the stem
SIDECAR_SUFFIX = ".status.json"
PARTIAL = "partial.txt"  # the extension of a job's text so far, a kind of output beside the formats


def split(name: str) -> tuple[tuple[str, ...], str]:
    """The folders above a file and its own name."""
    *folders, file = name.split("/")
    return tuple(folders), file


def join(folders: tuple[str, ...], file: str) -> str:
    """The inverse of `split`."""
    return "/".join((*folders, file))


def stem_and_extension(file: str) -> tuple[str, str]:
    """`("interview", ".mp3")`; the extension is empty where there is none, or where it is too long to be one."""
    stem, extension = os.path.splitext(file)
    return (stem, extension) if len(os.fsencode(extension)) <= EXTENSION_MAX else (file, "")


def numbered(file: str, number: int) -> str:
    """`interview.mp3` as the second of its name: `interview-2.mp3`; the first keeps its name."""
    if number == 1:
        return file
    stem, extension = stem_and_extension(file)
    return fit(stem, f"-{number}{extension}")


def output(file: str, extension: str) -> str:
    """What the transcript of `file` in one format is called: its stem with that extension."""
    return fit(stem_and_extension(file)[0], f".{extension}")


def sidecar(file: str) -> str:
    """What the sidecar of `file` is called: its whole name with `.status.json`."""
    return fit(file, SIDECAR_SUFFIX)


def original(file: str) -> str:
    """What the upload is called in the directory of its job: with its extension, where that is harmless."""
    extension = stem_and_extension(file)[1].lower()
    return "original" + (extension if extension[1:].isascii() and extension[1:].isalnum() else "")


def ticket(file: str, suffix: str) -> str:
    """What the own ticket of `file` is called beside it; `suffix` is `.yaml` or `.yml`, in any case."""
    return fit(file, suffix)


def fit(start: str, end: str) -> str:
    """`start + end`, shortened in the middle, and marked by a hash, where it would not fit into a directory entry.

    The cut is between characters, so the result is valid UTF-8 wherever `start` is; the hash keeps two long names apart.
    """
    if len(os.fsencode(start + end)) <= NAME_MAX:
        return start + end
    mark = "~" + hashlib.sha256(os.fsencode(start)).hexdigest()[:8]
    while len(os.fsencode(start + mark + end)) > NAME_MAX:
        start = start[:-1]
    return start + mark + end
