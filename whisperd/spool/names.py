"""How the files of a job are called: pure functions on names.

A name is a path relative to the inbox, parts joined by "/", bytes that are not UTF-8 kept as surrogate escapes (PEP 383).
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DEPTH_MAX = (
    32  # folders in folders: each level costs an open for all below, and a chain of thousands would take minutes
)
NAME_MAX = 255  # bytes in one path component, the limit of nearly every filesystem
EXTENSION_MAX = 32  # bytes; what follows a dot and is longer belongs to the stem
SIDECAR_SUFFIX = ".status.json"
ONE_BY_ONE = 8  # numbers that are tried in turn before larger steps are taken
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


def first_free(is_taken: Callable[[int], bool]) -> int:
    """Find a number from 1 on that is free and follows one that is taken.

    The first few are tried in turn, so a gap among them is filled. Then the steps double, and halve again: thousands of
    files of one name would take quadratic time if each began at 1.
    """
    for number in range(1, ONE_BY_ONE):
        if not is_taken(number):
            return number
    taken, free = ONE_BY_ONE - 1, ONE_BY_ONE
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
