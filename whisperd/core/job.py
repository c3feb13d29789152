"""What a job is: values without behaviour, shared by every room."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from whisperd.core.errors import JobError, WhisperdError

if TYPE_CHECKING:
    from whisperd.core.options import JobSpec


class Status(StrEnum):
    """What a user asks first; `status` in the sidecar."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


UNDER_WAY = frozenset({Status.PENDING, Status.IN_PROGRESS})  # more will come of it


class Phase(StrEnum):
    """What is going on right now; `phase` in the sidecar."""

    UPLOADING = "uploading"  # in the inbox, not yet taken; `reason` says why
    QUEUED = "queued"  # claimed, waiting for a worker
    DECODING = "decoding"  # ffmpeg is reading the recording
    TRANSCRIBING = "transcribing"  # the engine is at work
    PUBLISHING = "publishing"  # results move into the outbox
    ENDED = "ended"  # completed or failed


_UNSTABLE_INODES: set[int] = set()


@dataclass(frozen=True, slots=True)
class Signature:
    """Tells one state of a file from another: equal over a quiet time means nobody changed it.

    Blocks and ctime are part of it because SMB clients reserve the full size first and set mtime back at the end.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    blocks: int

    @classmethod
    def of(cls, status: os.stat_result) -> Signature:
        """What stat(2) says of a file's state."""
        inode = 0 if status.st_dev in _UNSTABLE_INODES else status.st_ino
        return cls(status.st_dev, inode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_blocks)

    @staticmethod
    def ignore_inodes_of(device: int) -> None:
        """From now on inode numbers on this device mean nothing: FUSE makes them up anew, for one file every second."""
        _UNSTABLE_INODES.add(device)

    def same_content(self, other: Signature) -> bool:
        """Whether size and data are as they were; a rename changes ctime alone."""
        return (self.device, self.inode, self.size, self.mtime_ns) == (
            other.device,
            other.inode,
            other.size,
            other.mtime_ns,
        )


@dataclass(frozen=True, slots=True)
class Ticket:
    """Options that came as a file beside an upload, or for its folder, as yet unchecked."""

    name: str  # relative to the inbox
    suffix: str = ""  # what its name adds to that of the upload; empty: it is its folder's
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)  # where each key stands, from 1 on
    problems: tuple[str, ...] = ()  # why it could not be read
    signature: Signature | None = None  # of the file as it was read


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a value: what crosses processes and what the sidecar shows."""

    code: str
    message: str
    hint: str = ""
    retryable: bool = False
    stage: str = ""

    @classmethod
    def of(cls, error: BaseException, *, stage: str = "") -> Failure:
        """The failure that an exception stands for; an unexpected one is retryable and keeps its type's name."""
        if isinstance(error, JobError):
            return cls(error.job_code, error.message, error.hint, error.retryable, error.stage or stage)
        if isinstance(error, WhisperdError):
            return cls(type(error).code, error.message, error.hint, retryable=True, stage=stage)
        if isinstance(error, MemoryError):
            return cls(
                "out_of_memory", "out of memory", "use a smaller model or add memory", retryable=True, stage=stage
            )
        detail = f"{type(error).__name__}: {error}"
        return cls("internal", detail, "see the journal for the traceback", retryable=True, stage=stage)


@dataclass(frozen=True, slots=True)
class Job:
    """One upload on its way through the spool, as `job.json` keeps it.

    `name` is the path relative to the inbox with surrogate escapes for bytes that are not UTF-8.
    `place` is the path, relative to outbox, done and failed, under which the job's files go: `name` with the suffix that
    keeps it from colliding (`alice/interview-2.mp3`).
    """

    id: str
    name: str
    place: str
    original: str  # file name of the original inside the job's directory
    signature: Signature
    created_at: str
    claimed_at: str
    attempts: int = 0
    started_at: str | None = None
    formats: tuple[str, ...] = ()
    suspect: bool = False  # was running when the daemon died: runs alone next time
    spec: JobSpec | None = None  # what is to be done with it; None: claimed by a release that did not record it
    ticket: str = ""  # what the name of its own ticket adds to that of the upload; empty: it has none
    ticket_signature: Signature | None = None  # of that ticket when it was read; another one is for the next upload

    def evolve(self, **changes: Any) -> Job:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def given_back(self) -> Job:
        """After an attempt that does not count."""
        return self.evolve(attempts=max(0, self.attempts - 1), suspect=False)

    def suspected(self) -> Job:
        """After a death that several jobs may be guilty of: the attempt does not count, and it runs alone."""
        return self.evolve(attempts=max(0, self.attempts - 1), suspect=True)

    def failed_once(self) -> Job:
        """After an attempt that failed and counts."""
        return self.evolve(suspect=False)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running job is; audio seconds, never going back."""

    phase: Phase = Phase.QUEUED
    processed_seconds: float = 0.0
    duration_seconds: float | None = None
    speed: float | None = None
    eta_seconds: float | None = None
    queue_position: int | None = None

    @property
    def percent(self) -> float:
        """0-100; 0 while the length is unknown."""
        if not self.duration_seconds:
            return 0.0
        return round(min(100.0, 100.0 * self.processed_seconds / self.duration_seconds), 1)


@dataclass(frozen=True, slots=True)
class Result:
    """What a worker reports of a finished job; the text itself lies rendered in the job's directory."""

    duration_seconds: float
    processing_seconds: float
    sha256: str
    language: str | None
    language_probability: float | None
    engine: str
    model: str
    device: str
    outputs: tuple[str, ...]  # formats rendered
    quality: dict[str, Any] = field(default_factory=dict)
    duplicate_of: str | None = None  # place of the earlier job whose transcripts these are

    @property
    def rendered(self) -> tuple[str, ...]:
        """The formats that lie in this job's own directory until they are published."""
        return self.outputs if self.duplicate_of is None else ()

    @property
    def speed(self) -> float | None:
        """Audio seconds per second of work."""
        return round(self.duration_seconds / self.processing_seconds, 2) if self.processing_seconds > 0 else None


def utc_now(ago_seconds: float = 0.0) -> str:
    """Wall-clock time for records: UTC, ISO 8601, milliseconds; or a time some seconds ago."""
    return (
        (datetime.now(UTC) - timedelta(seconds=ago_seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def original_url(place: str) -> str:
    """The original in done/ as seen from its transcripts in the outbox: a relative URL (RFC 3986, section 4.2)."""
    return "../" * (place.count("/") + 1) + "done/" + quote(os.fsencode(place))
