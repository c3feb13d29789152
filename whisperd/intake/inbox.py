"""The inbox as the supervisor sees it: what has settled, in which order it is taken, and what cannot be taken."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd.fair import FairQueue, top_folder
from whisperd.intake.ignore import Ignore
from whisperd.intake.scan import Found, look, scan
from whisperd.intake.settle import Settle
from whisperd.intake.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from whisperd.job import Signature

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IntakeOptions:
    """How uploads are found and when they count as complete."""

    settle_seconds: float
    empty_seconds: float
    rescan_seconds: float
    ignore: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Upload:
    """A settled upload, ready to be claimed."""

    name: str
    signature: Signature
    first_seen: float


class Inbox:
    """Feeds events and scans into the settle machine and keeps what came out of it in fair order."""

    def __init__(self, path: Path, options: IntakeOptions, wake: Callable[[], None]) -> None:
        self._path = path
        self._watch = Watch(path, wake)
        self._wake = wake
        self._ready: FairQueue[Upload] = FairQueue()
        self.refused: dict[str, str] = {}
        self._trouble = ""
        self.configure(options)

    def configure(self, options: IntakeOptions) -> None:
        """Use these options from now on; every file is looked at afresh."""
        self._options = options
        self._ignore = Ignore(options.ignore)
        self._settle = Settle(options.settle_seconds, options.empty_seconds)
        self._ready = FairQueue()
        self._rescan_at = 0.0
        self._scanned = False

    def start(self) -> None:
        """Watch first, then scan: a file that arrives between the two is seen by one of them.

        Raises:
            OSError: the inbox cannot be watched.
        """
        self._watch.start()

    def stop(self) -> None:
        """Stop watching."""
        self._watch.stop()

    def __len__(self) -> int:
        """How many files are waiting here, settled or not."""
        return len(self._settle)

    def is_empty(self) -> bool:
        """Whether a scan has found nothing that could be claimed."""
        return self._scanned and all(name in self.refused for name in self._settle.names())

    def tick(self, now: float) -> None:
        """Take in what happened since the last call."""
        hinted, lost = self._watch.drain()
        if lost:
            _log.info("events were lost: scanning the inbox")
        if lost or now >= self._rescan_at:
            self._rescan(now)
        for name in hinted:
            self._hint(name, now)
        for name in self._settle.due(now):
            self._examine(name, now)

    def next_at(self, now: float) -> float:
        """When `tick` has something to do again, if no event comes before."""
        due = self._settle.next_due()
        return min(self._rescan_at, due if due is not None else now + self._options.rescan_seconds)

    def take(self) -> Upload | None:
        """The next upload to claim: folders in turn, first come first served within one."""
        upload = self._ready.pop()
        if upload is not None:
            self._settle.forget(upload.name)
        return upload

    def put_back(self, upload: Upload, now: float) -> None:
        """Keep an upload that could not be claimed for lack of room: it is the next again."""
        self._settle.observe(upload.name, upload.signature, now)
        self._ready.push_front(upload.name, top_folder(upload.name), upload)

    def see_again(self, name: str, now: float) -> None:
        """Let a file whose claim was lost settle once more."""
        self._hint(name, now)

    def refuse(self, name: str, reason: str) -> None:
        """Remember that a file cannot be taken, until it is, or is gone; each scan lets it be tried again."""
        self.refused[name] = reason

    def claimed(self, name: str) -> None:
        """The file is no longer in the inbox, and nothing is held against its name."""
        self.refused.pop(name, None)

    def _rescan(self, now: float) -> None:
        self._rescan_at = now + self._options.rescan_seconds
        if not self._watch.is_alive():
            self._rearm()
        try:
            found = list(scan(self._path, self._ignore))
        except OSError as error:
            self._report(f"cannot read the inbox {self._path}: {error.strerror}")
            return
        self._report("")
        self._scanned = True
        present = set()
        for entry in sorted(found, key=_arrival):
            present.add(entry.name)
            self._see(entry, now)
        for name in [name for name in self._settle.names() if name not in present]:
            self._forget(name)
        for name in [name for name in self.refused if name not in present]:
            del self.refused[name]

    def _rearm(self) -> None:
        self._watch.stop()
        self._watch = Watch(self._path, self._wake)
        try:
            self._watch.start()
        except OSError as error:
            self._report(f"cannot watch the inbox {self._path}: {error.strerror}")
        else:
            _log.warning("the inbox is watched afresh: it was replaced, or its watch had ended")

    def _report(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            _log.error("%s; whisperd goes on by itself once it is back", trouble)
        elif self._trouble and not trouble:
            _log.info("the inbox can be read again")
        self._trouble = trouble

    def _hint(self, name: str, now: float) -> None:
        path = os.path.join(self._path, name)
        if os.path.isdir(path) and not os.path.islink(path):
            parts = () if name == "." else tuple(name.split("/"))
            if not any(self._ignore(part) for part in parts):
                self._see_all(scan(self._path, self._ignore, parts), now)
            return
        self._settle.touch(name, now)
        self._examine(name, now)

    def _see_all(self, found: Iterable[Found], now: float) -> None:
        for entry in sorted(found, key=_arrival):
            self._see(entry, now)

    def _see(self, entry: Found, now: float) -> None:
        if entry.refusal is not None or entry.signature is None:
            self._settle.forget(entry.name)
            self._ready.remove(entry.name)
            self.refused[entry.name] = entry.refusal or ""
            return
        if entry.name not in self._ready:
            self._settle.observe(entry.name, entry.signature, now)

    def _examine(self, name: str, now: float) -> None:
        """Look at one file; if it has settled it is ready to be claimed."""
        entry = look(self._path, name, self._ignore)
        if entry is None:
            self._forget(name)
            self.refused.pop(name, None)
            return
        self._ready.remove(name)
        self._see(entry, now)
        if entry.signature is not None and entry.refusal is None and self._settle.confirm(name, entry.signature, now):
            upload = Upload(name, entry.signature, self._settle.first_seen(name))
            self._ready.push(name, top_folder(name), upload)

    def _forget(self, name: str) -> None:
        self._settle.forget(name)
        self._ready.remove(name)


def _arrival(found: Found) -> tuple[int, str]:
    return (found.signature.ctime_ns if found.signature else 0, found.name)
