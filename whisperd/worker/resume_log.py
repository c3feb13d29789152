"""The resume log: finished windows of a job, appended to a file in its directory, from which a restarted job continues.

The file has a JSON line for each window, each with its own checksum. Its first line identifies recording, model and
settings: a log of anything else is discarded. An incomplete last line is cut off.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zlib
from typing import TYPE_CHECKING, Any

from whisperd.core.transcript import Segment, Word
from whisperd.engine.api import DecodedWindow
from whisperd.spool.durable import failpoint

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

NAME = "resume.jsonl"

Key = tuple[int, int, str | None, str]  # first sample, end sample, the language asked for, what was asked for


class ResumeLog:
    """The resume log of one job.

    Args:
        directory: of the job.
        made_from: everything that a result depends on; if any of it has changed, the log is discarded.
    """

    def __init__(self, directory: Path, made_from: dict[str, Any]) -> None:
        self._path = directory / NAME
        self._head = hashlib.sha256(json.dumps(made_from, sort_keys=True, default=str).encode()).hexdigest()
        self._done: dict[Key, DecodedWindow] = {}
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            end = self._load()
            os.ftruncate(self._fd, end)
            os.lseek(self._fd, end, os.SEEK_SET)
            if end == 0:
                self._append([json.dumps({"made_from": self._head})])
        except BaseException:  # nobody gets an object to close: on a full disk every attempt would leak a descriptor
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Number of windows in the log."""
        return len(self._done)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def find(self, key: Key) -> DecodedWindow | None:
        """Look up the result of a window; None if it was not finished before."""
        return self._done.get(key)

    def add(self, finished: list[tuple[Key, DecodedWindow]]) -> None:
        """Append finished windows, durably.

        Raises:
            OSError: the disk is full, for one.
        """
        self._done.update(finished)
        self._append([json.dumps({"key": key, "window": dataclasses.asdict(window)}) for key, window in finished])

    def _append(self, lines: list[str]) -> None:
        data = b"".join(_sealed(line) for line in lines)
        start = os.lseek(self._fd, 0, os.SEEK_CUR)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
                failpoint("worker.after_resume_log_write")
            os.fdatasync(self._fd)
            failpoint("worker.after_resume_log_sync")
        except OSError:
            os.ftruncate(self._fd, start)  # half a line would hide every line after it
            os.lseek(self._fd, start, os.SEEK_SET)
            raise

    def _load(self) -> int:
        """Read the valid lines; return the offset of their end."""
        end = 0
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            for number, line in enumerate(file):
                record = _checked(line)
                if record is None:
                    break
                if number == 0:
                    if record.get("made_from") != self._head:
                        return 0
                else:
                    start, stop, language, kind = record["key"]
                    self._done[start, stop, language, kind] = _window(record["window"])
                end += len(line)
        return end


def _sealed(line: str) -> bytes:
    data = line.encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(data), data)


def _checked(line: bytes) -> dict[str, Any] | None:
    checksum, space, data = line.partition(b" ")
    if not space or not data.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(data[:-1]):
        return None
    record: dict[str, Any] = json.loads(data)
    return record


def _window(fields: dict[str, Any]) -> DecodedWindow:
    segments, heard = tuple(map(_segment, fields["segments"])), tuple(fields["heard"])
    return DecodedWindow(**{**fields, "segments": segments, "heard": heard})


def _segment(fields: dict[str, Any]) -> Segment:
    words = fields["words"]
    return Segment(
        **{
            **fields,
            "tokens": tuple(fields["tokens"]),
            "words": None if words is None else tuple(Word(**word) for word in words),
        }
    )
