"""Judges whether an upload is complete: before it is claimed, and again after its run.

Before (`judge`), it must be quiet for long enough, open for writing nowhere, and as long as its header promises. The three
tests are independent, and all must agree. After (`recheck`), it must still be what the worker read: a writer that had it open
may have continued. It is then read block by block, so that the loop of the supervisor can do other things in between.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from whisperd.container import Complete, Short, Source, format_of, inspect
from whisperd.core.display import printable, readable_size
from whisperd.core.job import Failure, Signature
from whisperd.intake.ignore import LIKE_RECORDINGS, NO_RECORDINGS, UNFINISHED
from whisperd.intake.writers import Leases, Sessions
from whisperd.spool import names
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whisperd.core.job import Job
    from whisperd.settings.sections import IntakeOptions

CLIENT_CONNECTED = "complete; its owner is still connected, and the client may come back to it"
LOOK_AGAIN_SECONDS = (0.5, 30.0)  # at first, and at most, while nothing about a file changes
BLOCK_BYTES = 1 << 16  # a slow disk (10 MB/s) reads one in 7 ms


@dataclass(frozen=True, slots=True)
class Wait:
    """The verdict that an upload is not complete yet.

    Attributes:
        reason: why, for the status file.
        seconds: after how long to look again if no event comes before.
        held_back: something other than time must change first.
    """

    reason: str
    seconds: float
    held_back: bool = False


@dataclass(frozen=True, slots=True)
class Take:
    """The verdict that an upload is complete or, with a `failure`, can never be."""

    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """The verdict that an upload cannot be claimed until a person acts."""

    reason: str


@dataclass(frozen=True, slots=True)
class Changed:
    """The verdict that the file changed or disappeared since it was seen."""


Verdict = Wait | Take | Refuse | Changed


class OriginalState(Enum):
    """The result of the second comparison of an original."""

    SAME = auto()
    WRITER = auto()  # the same so far, but somebody has it open for writing
    CHANGED = auto()


def judge(
    folder: Folder,
    file: str,
    seen: Signature,
    *,
    quiet_seconds: float,
    options: IntakeOptions,
    leases: Leases,
    sessions: Sessions,
) -> Verdict:
    """Judge whether one file is complete, by its neighbours, its writers and its content.

    Args:
        folder: the folder that holds it.
        file: its name there.
        seen: its signature when it was last looked at.
        quiet_seconds: how long it has not changed.
        options: how long it has to be quiet.
        leases: tells whether somebody has it open for writing, where the kernel can be asked.
        sessions: tells whether its client may come back to it.
    """
    again = _again(quiet_seconds)
    if other := _awaited(folder, file, options.done_marker):
        return Wait(f"waiting for {printable(other)}", again, held_back=True)
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder.fd)
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EPERM}:
            return Refuse("permission denied: whisperd cannot read it; the file needs g+r")
        return Changed() if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENXIO} else Wait(_io(error), again)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or Signature.of(status) != seen:
            return Changed()
        if status.st_nlink > 1 and not is_open_to_readers(folder, status):
            return Refuse("this is a hard link to a file that the inbox's group may not read; copy it instead")
        if kind := _no_recording(fd, file, seen.size):
            return Refuse(f"this is no recording, by its name ({kind}) and its content; rename it if it is one")
        writer = leases.has_writer(folder, fd)
        if writer:
            return Wait("still open for writing", again, held_back=True)
        verdict = _judge_closed(fd, seen.size, quiet_seconds, options, is_known=writer is not None)
        is_early = isinstance(verdict, Take) and quiet_seconds < options.settle_seconds
        if is_early and sessions.is_connected(status.st_uid):
            return Wait(CLIENT_CONNECTED, min(again, options.settle_seconds - quiet_seconds))
        return verdict
    except OSError as error:
        return Wait(_io(error), again)
    finally:
        os.close(fd)


def recheck(directory: Path, job: Job, sha256: str) -> Iterator[OriginalState | None]:
    """Compare the original in a job's directory with its state when the attempt started.

    Blocks do not count, the filesystem allocates late. A new ctime alone (chmod, a backup, or data written with mtime set
    back) is decided by the content.

    Yields:
        None for each block that was read, then the state.

    Raises:
        OSError: it cannot be read.
    """
    with Folder(directory) as folder:
        fd = os.open(job.original, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder.fd)
        try:
            before = Signature.of(os.fstat(fd))
            content: str | None = sha256
            if not _is_of_same_length(before, job.signature):
                content = None
            elif _stamps(before) != _stamps(job.signature):
                for content in read_sha256(fd, before.size):
                    if content is None:
                        yield None
            after = Signature.of(os.fstat(fd))
            if content != sha256 or not _is_of_same_length(after, before):
                yield OriginalState.CHANGED
            elif _stamps(after) != _stamps(before) or Leases().has_writer(folder, fd):
                yield OriginalState.WRITER  # what was written behind the reader is found by the next look
            else:
                yield OriginalState.SAME
        finally:
            os.close(fd)


def read_sha256(fd: int, size: int) -> Iterator[str | None]:
    """Compute the SHA-256 of a file in steps: yields None for each block, then the hexadecimal digest.

    No more than `size` bytes are read: a writer that appends must not keep the reader forever.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    at = 0
    while at < size and (block := os.pread(fd, min(BLOCK_BYTES, size - at), at)):
        digest.update(block)
        at += len(block)
        yield None
    yield digest.hexdigest()


def _awaited(folder: Folder, file: str, marker: str) -> str | None:
    """Find the file that this one waits for: a temporary file that must disappear, or a done marker that is missing."""
    for suffix in UNFINISHED:
        if folder.exists(file + suffix):
            return file + suffix
    return file + marker if marker and not folder.exists(file + marker) else None


def is_open_to_readers(folder: Folder, status: os.stat_result) -> bool:
    """Whether the readers of the outbox may read this file, which a user who is not its owner may have linked here.

    The kernel prevents such links where `fs.protected_hardlinks` is on (proc(5)), but not those made by another machine.
    """
    if status.st_mode & stat.S_IROTH:
        return True
    return bool(status.st_mode & stat.S_IRGRP) and status.st_gid == os.fstat(folder.fd).st_gid


def _no_recording(fd: int, file: str, size: int) -> str:
    """Find the extension of a file that is no recording and begins like none; empty if it may be one."""
    extension = names.stem_and_extension(file)[1].lower()
    if extension not in NO_RECORDINGS:
        return ""
    return extension if extension in LIKE_RECORDINGS or format_of(Source(fd, size)) is None else ""


def _judge_closed(fd: int, size: int, quiet_seconds: float, options: IntakeOptions, *, is_known: bool) -> Verdict:
    """Judge a file by its content and its quiet time; with `is_known` the kernel has said that nobody writes to it."""
    again = _again(quiet_seconds)
    if not size:
        # browsers and Finder create an empty placeholder long before the data arrives
        return _quiet(quiet_seconds, max(options.empty_seconds, options.settle_seconds), "it is still empty")
    promise = inspect(Source(fd, size))
    if isinstance(promise, Short):
        if quiet_seconds < max(options.truncated_seconds, options.settle_seconds):
            return Wait(_what_is_missing(promise), min(again, max(0.05, options.truncated_seconds - quiet_seconds)))
        return Take(_truncated(promise))
    hole = _first_hole(fd, size)
    if hole < size and _ends_in_hole(fd, size) and quiet_seconds < options.truncated_seconds:
        return Wait(f"{readable_size(hole)} of {readable_size(size)} written so far", again)
    if hole < size:
        # a downloader that writes pieces out of order, or a copy of digital silence without its zeros: only time can tell
        what = f"nothing is written in it at {readable_size(hole)} of {readable_size(size)}"
        return _quiet(quiet_seconds, max(options.empty_seconds, options.settle_seconds), what)
    proven = is_known and isinstance(promise, Complete)
    return _quiet(quiet_seconds, options.settle_seconds_proven if proven else options.settle_seconds)


def _again(quiet_seconds: float) -> float:
    return min(LOOK_AGAIN_SECONDS[1], max(LOOK_AGAIN_SECONDS[0], quiet_seconds / 10))


def _quiet(quiet_seconds: float, needed_seconds: float, also: str = "") -> Verdict:
    if quiet_seconds >= needed_seconds:
        return Take()
    return Wait(f"changed {quiet_seconds:.0f} s ago" + (f", {also}" if also else ""), needed_seconds - quiet_seconds)


def _first_hole(fd: int, size: int) -> int:
    """Find the offset of the first hole, a part that was never written; `size` if there is none."""
    try:
        return os.lseek(fd, 0, os.SEEK_HOLE)
    except OSError:
        return size  # this filesystem keeps no holes


def _ends_in_hole(fd: int, size: int) -> bool:
    """Whether the file ends in a hole, because a client that writes from front to back is not done yet."""
    try:
        os.lseek(fd, size - 1, os.SEEK_DATA)
    except OSError as error:
        return error.errno == errno.ENXIO
    return False


def _what_is_missing(short: Short) -> str:
    if short.promised_bytes is None:
        return f"{short.missing} is still missing, {readable_size(short.present_bytes)} here"
    return f"header promises {readable_size(short.promised_bytes)}, {readable_size(short.present_bytes)} here"


def _truncated(short: Short) -> Failure:
    if short.promised_bytes is None:
        what = f"{short.missing} is missing"
    else:
        # rounded down: 99.9 % must not be called 100 %
        what = f"{100 * short.present_bytes // short.promised_bytes} % of what its header promises"
    return Failure(
        "truncated",
        f"upload looks truncated: {what}",
        "upload it again; to have what is there transcribed, convert it with a player or editor that can open it",
        stage="uploading",
    )


def _io(error: OSError) -> str:
    return f"cannot be read: {error.strerror}"


def _is_of_same_length(one: Signature, other: Signature) -> bool:
    return (one.size, one.inode) == (other.size, other.inode)


def _stamps(signature: Signature) -> tuple[int, int]:
    return signature.mtime_ns, signature.ctime_ns
