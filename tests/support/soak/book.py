"""What was uploaded and what has come of it: each upload is held against its due end."""

from __future__ import annotations

import collections
import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from support.invariants import check_spool, digest
from whisperd.core.display import printable
from whisperd.spool import status_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.soak.mix import Upload, Voice

SECOND_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Entry:
    """An upload without its bytes; `complete_at` is the wall-clock time of its last byte."""

    kind: str
    name: str
    sha256: str
    codes: frozenset[str]
    text: str
    complete_at: float


class Book:
    """The uploads of one round, and of all rounds the counts and times.

    Args:
        root: the spool.
        voice: knows whether a text is right.
    """

    def __init__(self, root: Path, voice: Voice) -> None:
        self._root = root
        self._voice = voice
        self._open: list[Entry] = []
        self._ended_before = 0
        self.kinds: collections.Counter[str] = collections.Counter()
        self.ends: collections.Counter[str] = collections.Counter()
        self.problems: list[str] = []
        self.latencies: list[float] = []  # from the last byte to the sidecar `completed`, in seconds
        self.waits: list[float] = []  # from the claim to the first attempt

    def note(self, upload: Upload, complete_at: float) -> None:
        """An upload is complete."""
        entry = Entry(upload.kind, upload.name, digest(upload.data), upload.codes, upload.text, complete_at)
        self._open.append(entry)
        self.kinds[upload.kind] += 1

    def ended(self) -> int:
        """How many originals have been brought to an end, in all rounds; each moves last of all that is a job's."""
        return self._ended_before + sum(_count(self._root / room) for room in ("done", "failed"))

    def is_settled(self) -> bool:
        """Whether nothing is under way."""
        return not _count(self._root / "inbox") and not any((self._root / ".work").glob("[!.]*"))

    def close_round(self) -> None:
        """Check everything, then clear done/, failed/ and outbox/ away, as people do."""
        uploads = {f"{number}: {entry.name}": entry.sha256 for number, entry in enumerate(self._open)}
        problems = check_spool(self._root, uploads)
        if problems:  # the daemon is there, and idle: what it makes for a moment is gone at a second look
            time.sleep(SECOND_LOOK_SECONDS)
            problems = [problem for problem in check_spool(self._root, uploads) if problem in problems]
        self.problems += [*problems, *self._wrong_ends()]
        self._ended_before += len(self._open)
        self._open.clear()
        for room in ("done", "failed", "outbox"):
            for path in (self._root / room).iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _wrong_ends(self) -> Iterator[str]:
        due = {entry.sha256: entry for entry in self._open}
        waiting = collections.defaultdict(collections.deque)
        for entry in self._open:
            waiting[printable(entry.name), entry.sha256].append(entry.complete_at)
        originals = dict(_digests(self._root))
        texts = {_shown(self._root, path): path for path in _files(self._root / "outbox") if path.suffix == ".txt"}
        for path in (self._root / "outbox").rglob("*.status.json"):
            document = status_file.decode(path.read_bytes()) or {"original": None}
            entry = due.get(originals.get(document["original"], ""))
            if entry is None:
                continue  # `check_spool` has said so
            self.ends[document["status"]] += 1
            where = f"{document['name']} ({entry.kind})"
            if (document["status"] == "failed") != bool(entry.codes):
                yield f"wrong end: {where}: {document['status']}, {document['error']}"
            elif entry.codes and document["error"]["code"] not in entry.codes:
                yield f"wrong end: {where}: failed as {document['error']['code']}"
            elif not entry.codes:
                transcript = texts.get(document["outputs"].get("txt"))
                text = transcript.read_text() if transcript else ""
                if not self._voice.hears(entry.text, text):
                    yield f"wrong text: {where}: {text!r} instead of {entry.text!r}"
                if not waiting[document["name"], entry.sha256]:
                    yield f"wrong name: {where}"
                    continue
                finished_at = _seconds(document["finished_at"])
                self.latencies.append(finished_at - waiting[document["name"], entry.sha256].popleft())
                if document["started_at"]:  # none for what was skipped as a duplicate
                    self.waits.append(_seconds(document["started_at"]) - _seconds(document["claimed_at"]))


def _files(folder: Path) -> Iterator[Path]:
    for place, _, files in os.walk(folder):
        for file in files:
            if not file.startswith("."):
                yield Path(place, file)


def _shown(root: Path, path: Path) -> str:
    return printable(str(path.relative_to(root)))


def _count(folder: Path) -> int:
    return sum(1 for _ in _files(folder))


def _digests(root: Path) -> Iterator[tuple[str, str]]:
    for room in ("done", "failed"):
        for path in _files(root / room):
            with contextlib.suppress(FileNotFoundError):
                yield _shown(root, path), digest(path.read_bytes())


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
