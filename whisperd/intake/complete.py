"""Is this upload complete? Three independent tests, and all must agree: quiet, no writer, and the container's own promise."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd.container import Complete, Short, Source, inspect
from whisperd.core.display import printable, readable_size
from whisperd.core.job import Failure, Signature
from whisperd.intake.companions import companion, missing_marker

if TYPE_CHECKING:
    from whisperd.intake.lease import Leases
    from whisperd.intake.options import IntakeOptions
    from whisperd.spool.durable import Folder

LOOK_AGAIN_SECONDS = (0.5, 30.0)  # at first, and at most, while nothing about a file changes


@dataclass(frozen=True, slots=True)
class Wait:
    """Not complete yet: why, after how long to look again if no event comes before, and if time alone will not help."""

    reason: str
    seconds: float
    held_back: bool = False


@dataclass(frozen=True, slots=True)
class Take:
    """Complete; with a `failure`, it is certain that it never will be."""

    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """It cannot be taken until somebody acts."""

    reason: str


@dataclass(frozen=True, slots=True)
class Changed:
    """It is not the file that was seen, or is not there any more."""


Verdict = Wait | Take | Refuse | Changed


def judge(
    folder: Folder, file: str, seen: Signature, *, quiet_seconds: float, options: IntakeOptions, leases: Leases
) -> Verdict:
    """Look at one file.

    Args:
        folder: where it lies.
        file: its name there.
        seen: what stat(2) said of it last.
        quiet_seconds: for how long nothing about it has changed.
        options: how much quiet is needed.
        leases: knows in which folders the kernel can be asked for writers.
    """
    again = _again(quiet_seconds)
    if other := companion(folder, file) or missing_marker(folder, file, options.done_marker):
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
        if status.st_nlink > 1 and not _is_open_to_readers(folder, status):
            return Refuse("this is a hard link to a file that the inbox's group may not read; copy it instead")
        writer = leases.has_writer(folder, fd)
        if writer:
            return Wait("still open for writing", again, held_back=True)
        return _judge_closed(fd, seen.size, quiet_seconds, options, is_known=writer is not None)
    except OSError as error:
        return Wait(_io(error), again)
    finally:
        os.close(fd)


def _is_open_to_readers(folder: Folder, status: os.stat_result) -> bool:
    """Whether those who will read the transcript may read the file: who made one more name for it need not be its owner.

    The kernel sees to that where `fs.protected_hardlinks` is on (proc(5)), but not for links made by another machine.
    """
    if status.st_mode & stat.S_IROTH:
        return True
    return bool(status.st_mode & stat.S_IRGRP) and status.st_gid == os.fstat(folder.fd).st_gid


def _judge_closed(fd: int, size: int, quiet_seconds: float, options: IntakeOptions, *, is_known: bool) -> Verdict:
    """Judge by content and quiet; `is_known`: it is certain that nobody writes."""
    again = _again(quiet_seconds)
    if not size:
        # browsers and Finder create an empty placeholder long before the data comes
        return _quiet(quiet_seconds, max(options.empty_seconds, options.settle_seconds), "it is still empty")
    promise = inspect(Source(fd, size))
    if isinstance(promise, Short):
        if quiet_seconds < max(options.truncated_seconds, options.settle_seconds):
            return Wait(_what_is_missing(promise), min(again, max(0.05, options.truncated_seconds - quiet_seconds)))
        return Take(_truncated(promise))
    written = _written_bytes(fd, size)
    if written < size and quiet_seconds < options.truncated_seconds:
        return Wait(f"{readable_size(written)} of {readable_size(size)} written so far", again)
    proven = is_known and isinstance(promise, Complete)
    return _quiet(quiet_seconds, options.settle_seconds_proven if proven else options.settle_seconds)


def _again(quiet_seconds: float) -> float:
    return min(LOOK_AGAIN_SECONDS[1], max(LOOK_AGAIN_SECONDS[0], quiet_seconds / 10))


def _quiet(quiet_seconds: float, needed_seconds: float, also: str = "") -> Verdict:
    if quiet_seconds >= needed_seconds:
        return Take()
    return Wait(f"changed {quiet_seconds:.0f} s ago" + (f", {also}" if also else ""), needed_seconds - quiet_seconds)


def _written_bytes(fd: int, size: int) -> int:
    """Where the room begins that was reserved and never written, which reads as zeros; `size` if there is none.

    Only a hole that reaches the end counts: a client that writes from front to back leaves no other.
    """
    try:
        hole = os.lseek(fd, 0, os.SEEK_HOLE)
        while hole < size:
            try:
                hole = os.lseek(fd, os.lseek(fd, hole, os.SEEK_DATA), os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return hole
                raise
    except OSError:
        return size  # this filesystem keeps no holes
    return size


def _what_is_missing(short: Short) -> str:
    if short.promised_bytes is None:
        return f"{short.missing} has not come yet, {readable_size(short.present_bytes)} here"
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
