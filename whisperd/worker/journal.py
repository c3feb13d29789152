"""Finished windows of a job, appended to its directory as they come, from which a restarted job goes on.

One JSON line a window, each with its own checksum, behind a line that says what it was made from: a journal of another
recording, model or setting is started anew, and a torn end is cut off.
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

NAME = "journal.jsonl"

Key = tuple[int, int, str | None]  # first sample, end sample, the language asked for


class Journal:
    """The journal of one job.

    Args:
        directory: the job's own.
        made_from: everything that a result depends on; any change starts the journal anew.
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
        except (
            BaseException
        ):  # nobody gets an object to close: on a full disk every attempt would leave a descriptor open
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Windows on record."""
        return len(self._done)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def find(self, key: Key) -> DecodedWindow | None:
        """The result of a window that was finished before."""
        return self._done.get(key)

    def add(self, finished: list[tuple[Key, DecodedWindow]]) -> None:
        """Put finished windows on record, durably.

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
                failpoint("worker.after_journal_write")
            os.fdatasync(self._fd)
            failpoint("worker.after_journal_sync")
        except OSError:
            os.ftruncate(self._fd, start)  # half a line would hide all that is written behind it
            os.lseek(self._fd, start, os.SEEK_SET)
            raise

    def _load(self) -> int:
        """Read what is good; returns where it ends."""
        end = 0
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            for number, line in enumerate(file):
                record = _opened(line)
                if record is None:
                    break
                if number == 0:
                    if record.get("made_from") != self._head:
                        return 0
                else:
                    start, stop, language = record["key"]
                    self._done[start, stop, language] = _window(record["window"])
                end += len(line)
        return end


def _sealed(line: str) -> bytes:
    data = line.encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(data), data)


def _opened(line: bytes) -> dict[str, Any] | None:
    checksum, space, data = line.partition(b" ")
    if not space or not data.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(data[:-1]):
        return None
    record: dict[str, Any] = json.loads(data)
    return record


def _window(fields: dict[str, Any]) -> DecodedWindow:
    return DecodedWindow(**{**fields, "segments": tuple(map(_segment, fields["segments"]))})


def _segment(fields: dict[str, Any]) -> Segment:
    words = fields["words"]
    return Segment(
        **{
            **fields,
            "tokens": tuple(fields["tokens"]),
            "words": None if words is None else tuple(Word(**word) for word in words),
        }
    )
