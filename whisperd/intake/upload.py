"""The record of one upload in the inbox with its state and its clocks, and the table of all records.

An upload is due for a look once no event named it and its signature stayed the same for the quiet time, all measured on this
machine's monotonic clock: mtimes prove nothing, since cp -p, rsync -t and Explorer bring old ones along. Time is given,
never asked for. A look that does not find it complete postpones it, with the reason.
"""

from __future__ import annotations

import collections
import heapq
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from whisperd.core.fair import FairQueue, top_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.core.job import Failure, Signature

NEVER = float("inf")
TRACKED_MAX = 100_000  # files beyond that wait unseen for room; a folder that has fewer than its share is always seen
FOLDER_SHARE = 100


class UploadState(Enum):
    """The state of an upload in the inbox."""

    SEEN = "seen"  # it is new or has changed, and its quiet time has not passed
    SETTLING = "settling"  # a look found it incomplete; time alone may help
    HELD = "held"  # the same, and something else must change first: a writer, a temporary file beside it, a marker
    READY = "ready"  # it was quiet for long enough to be looked at, and waits for its turn
    REFUSED = "refused"  # somebody has to act before it can be taken


@dataclass(slots=True)
class Explanation:
    """The status file of one waiting upload.

    Attributes:
        refresh_at: when it is looked at again.
        content: hash of what is written.
        written_at: when that was.
        place: where it stands.
    """

    refresh_at: float
    content: int = 0
    written_at: float = 0.0
    place: str | None = None


@dataclass(slots=True, eq=False)
class Upload:
    """The record of one file in the inbox, or of something else that cannot be claimed; times are on the monotonic clock.

    Attributes:
        name: path relative to the inbox.
        signature: of a regular file; anything else has none.
        first_seen: since when it is known.
        quiet_since: when it last changed.
        state: where it stands.
        reason: why the last look did not find it complete.
        refusal: why it cannot be taken, until a look finds otherwise.
        is_unread: its refusal is that it, mostly a folder, cannot be read.
        failure: it is complete, and will fail for this reason.
        scan: the number of the last scan that met it.
        check_at: when it is due for a look.
        queued_at: the time of its one valid entry in the schedule.
        is_stall_told: whether the log has named it as stalled.
        explanation: its status file, while it waits for long.
    """

    name: str
    signature: Signature | None
    first_seen: float
    quiet_since: float
    state: UploadState = UploadState.SEEN
    reason: str = ""
    refusal: str = ""
    is_unread: bool = False
    failure: Failure | None = None
    scan: int = 0
    check_at: float = NEVER
    queued_at: float = NEVER
    is_stall_told: bool = False
    explanation: Explanation | None = None


class Uploads:
    """The table of all uploads that were seen and are not claimed.

    The schedule and the line of those that are ready hold records of the one dictionary, and nothing of their own.
    """

    def __init__(self, quiet_seconds: float) -> None:
        self.quiet_seconds = quiet_seconds
        self._uploads: dict[str, Upload] = {}
        self._files = 0  # those with a signature
        self._per_folder: collections.Counter[str] = collections.Counter()
        self._schedule: list[tuple[float, int, str]] = []  # ctime second: what was found in one scan keeps its order
        self._line: FairQueue[Upload] = FairQueue()

    def __len__(self) -> int:
        """Return how many regular files there are, complete or not."""
        return self._files

    def __contains__(self, name: str) -> bool:
        return name in self._uploads

    def __iter__(self) -> Iterator[Upload]:
        return iter(tuple(self._uploads.values()))

    def get(self, name: str) -> Upload | None:
        """Return the record of an upload; None if there is none."""
        return self._uploads.get(name)

    def has_room(self, name: str, *, is_file: bool = True) -> bool:
        """Whether a file may be observed, or something else refused."""
        if name in self._uploads:
            return True
        if not is_file:
            return len(self._uploads) - self._files < TRACKED_MAX
        return self._files < TRACKED_MAX or self._per_folder[top_folder(name)] < FOLDER_SHARE

    @property
    def has_hope(self) -> bool:
        """Whether some upload may become complete without anybody's action."""
        return any(
            upload.signature is not None and upload.state is not UploadState.HELD and not upload.refusal
            for upload in self._uploads.values()
        )

    def observe(self, name: str, signature: Signature, now: float) -> Upload:
        """Record the current state of a file; the quiet time of a new or changed one starts now."""
        upload = self._uploads.get(name)
        if upload is None or upload.signature is None:
            self.forget(name)
            upload = self._uploads[name] = Upload(name, signature, now, now)
            self._files += 1
            self._per_folder[top_folder(name)] += 1
            self._plan(upload, now + self.quiet_seconds)
        elif upload.signature != signature:
            upload.signature = signature
            self._change(upload, now)
        return upload

    def touch(self, name: str, now: float) -> None:
        """Start the quiet time of a file again, because an event named it."""
        if upload := self._file(name):
            self._change(upload, now)

    def postpone(self, name: str, until: float, reason: str, *, is_held: bool = False) -> None:
        """Make an incomplete upload due again at a later time, or the quiet time after its next change."""
        if upload := self._file(name):
            upload.reason, upload.refusal = reason, ""
            self._wait(upload, UploadState.HELD if is_held else UploadState.SETTLING, until)

    def refuse(self, name: str, reason: str, now: float, *, until: float) -> Upload:
        """Record that an upload cannot be claimed until a person acts; a file is examined again at the given time."""
        upload = self._uploads.get(name)
        if upload is None:
            upload = self._uploads[name] = Upload(name, None, now, now)
        upload.reason = upload.refusal = reason
        self._wait(upload, UploadState.REFUSED, until)
        return upload

    def reconsider(self, name: str) -> None:
        """Apply a new quiet time to a file without restarting its clocks."""
        upload = self._file(name)
        if upload is not None and upload.state is not UploadState.READY:
            self._wait(upload, UploadState.SEEN, upload.quiet_since + self.quiet_seconds)

    def forget(self, name: str) -> Upload | None:
        """Forget an upload that is gone or claimed; returns its last record."""
        upload = self._uploads.pop(name, None)
        if upload is None:
            return None
        self._line.remove(name)
        if upload.signature is not None:
            self._files -= 1
            group = top_folder(name)
            self._per_folder[group] -= 1
            if not self._per_folder[group]:
                del self._per_folder[group]
        return upload

    def due(self, now: float, limit: int) -> list[str]:
        """Mark uploads as ready to be examined that were quiet for long enough, oldest first and at most `limit`; returns them."""
        names = []
        while limit and self._schedule and self._schedule[0][0] <= now:
            at, _, name = heapq.heappop(self._schedule)
            limit -= 1
            upload = self._uploads.get(name)
            if upload is None or upload.queued_at != at:
                continue  # it was taken, or has another entry
            upload.queued_at = NEVER
            if upload.check_at > now:
                self._plan(upload, upload.check_at)
                continue
            upload.check_at = NEVER
            upload.state = UploadState.READY
            self._line.push(name, top_folder(name), upload)
            names.append(name)
        return names

    def next_due(self) -> float | None:
        """Return the time when `due` may next find an upload."""
        return self._schedule[0][0] if self._schedule else None

    @property
    def has_ready(self) -> bool:
        """Whether an upload is ready to be examined."""
        return len(self._line) > 0

    def next_ready(self) -> Upload | None:
        """Remove and return the next ready upload: folders take turns, and within one the first upload is the first."""
        return self._line.pop()

    def step_out(self, upload: Upload) -> None:
        """Remove an upload from the queue of ready ones, because it is handled otherwise."""
        self._line.remove(upload.name)

    def put_first(self, upload: Upload) -> None:
        """Put an upload back as the next ready one."""
        upload.state = UploadState.READY
        self._line.push_front(upload.name, top_folder(upload.name), upload)

    def _file(self, name: str) -> Upload | None:
        upload = self._uploads.get(name)
        return upload if upload is not None and upload.signature is not None else None

    def _change(self, upload: Upload, now: float) -> None:
        upload.quiet_since = now
        upload.is_stall_told = False
        upload.reason = ""
        self._wait(upload, UploadState.SEEN, now + self.quiet_seconds)

    def _wait(self, upload: Upload, state: UploadState, until: float) -> None:
        """Set a state in which an upload is not ready, and the time of its next examination."""
        upload.state = state
        self._line.remove(upload.name)
        if upload.signature is not None:
            self._plan(upload, until)

    def _plan(self, upload: Upload, at: float) -> None:
        assert upload.signature is not None
        upload.check_at = at
        if at < upload.queued_at:  # an entry that comes too early is put back when it is met
            upload.queued_at = at
            heapq.heappush(self._schedule, (at, upload.signature.ctime_ns, upload.name))
