"""The values that describe a job and its upload: signature, ticket, progress, result and failure."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from whisperd.core.display import one_line
from whisperd.core.errors import JobError, WhisperdError
from whisperd.core.transcript import KnownVoices  # noqa: TC001  # pydantic reads the types of the fields

if TYPE_CHECKING:
    from whisperd.core.display import Position
    from whisperd.core.options import JobSpec


MEDIA_EXTENSIONS = frozenset(
    [
        ".mp3",
        ".wav",
        ".m4a",
        ".mp4",
        ".flac",
        ".ogg",
        ".opus",
        ".webm",
        ".mkv",
        ".mov",
        ".avi",
        ".aac",
        ".wma",
        ".aiff",
        ".amr",
        ".3gp",
    ]
)


class Status(StrEnum):
    """The state of a job; `status` in the status file."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


UNDER_WAY = frozenset({Status.PENDING, Status.IN_PROGRESS})  # not ended yet


class Phase(StrEnum):
    """The step that a job is in; `phase` in the status file."""

    UPLOADING = "uploading"  # in the inbox, not yet claimed; `reason` says why
    QUEUED = "queued"  # claimed, waiting for a worker
    DECODING = "decoding"  # ffmpeg is reading the recording
    TRANSCRIBING = "transcribing"  # the engine is at work
    PUBLISHING = "publishing"  # results move into the outbox
    ENDED = "ended"  # completed or failed


FAILED_ATTEMPTS_MAX = 10  # on record: a device that is out of order may interrupt a job for days
ERROR_TEXT_MAX = 4000  # characters of what a library says of its error
_UNSTABLE_INODES: set[int] = set()


@dataclass(frozen=True, slots=True)
class Signature:
    """The state of a file by its metadata: two equal signatures mean that nobody changed the file in between.

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
        """Take the signature from the result of stat(2)."""
        inode = 0 if status.st_dev in _UNSTABLE_INODES else status.st_ino
        return cls(status.st_dev, inode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_blocks)

    @staticmethod
    def ignore_inodes_of(device: int) -> None:
        """Ignore inode numbers on this device from now on: FUSE may assign new ones to the same file."""
        _UNSTABLE_INODES.add(device)

    def same_content(self, other: Signature) -> bool:
        """Whether content and size are unchanged; a rename changes only ctime."""
        return (self.device, self.inode, self.size, self.mtime_ns) == (
            other.device,
            other.inode,
            other.size,
            other.mtime_ns,
        )


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket that was read: the options in a file beside an upload, or for its folder, not yet checked."""

    name: str  # relative to the inbox
    suffix: str = ""  # what its name adds to that of the upload; empty: the ticket of a folder
    values: dict[str, Any] = field(default_factory=dict)
    positions: dict[str, Position] = field(default_factory=dict)  # of each key
    problems: tuple[str, ...] = ()  # why it cannot be followed
    hint: str = ""  # what to do about the problems; empty: correct the ticket
    signature: Signature | None = None  # of the file when it was read


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a value: it is sent between processes and shown in the status file."""

    code: str
    message: str
    hint: str = ""
    retryable: bool = False
    stage: str = ""

    @classmethod
    def of(cls, error: BaseException, *, stage: str = "") -> Failure:
        """Make a failure from an exception; an unexpected one is retryable and keeps the name of its type."""
        if isinstance(error, WhisperdError):
            message, hint = _short(error.message), _short(error.hint)
            if isinstance(error, JobError):
                return cls(error.job_code, message, hint, error.retryable, error.stage or stage)
            return cls(type(error).code, message, hint, retryable=True, stage=stage)
        if isinstance(error, MemoryError):
            return cls(
                "out_of_memory", "out of memory", "use a smaller model or add memory", retryable=True, stage=stage
            )
        detail = _short(f"{type(error).__name__}: {error}")
        return cls("internal", detail, "see the journal for the traceback", retryable=True, stage=stage)


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An attempt that failed and was not the last one; `counted` says whether it was the fault of the job."""

    at: str
    counted: bool
    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Job:
    """One upload on its way through the spool, as `job.json` records it.

    `name` is the path relative to the inbox with surrogate escapes for bytes that are not UTF-8.
    `place` is the path, relative to outbox, done and failed, of the job's files: `name`, with a number if that was taken
    (`alice/interview-2.mp3`).
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
    suspect: bool = False  # it was running when the daemon or a worker died, and runs alone next time
    spec: JobSpec | None = None  # None: claimed by a release that did not record it
    ticket: str = ""  # the suffix of its own ticket; empty: no ticket
    ticket_signature: Signature | None = None  # of that ticket when read; one that differs belongs to the next upload
    failed_attempts: tuple[FailedAttempt, ...] = ()  # the latest, oldest first

    def evolve(self, **changes: Any) -> Job:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def after(self, failure: Failure, *, counted: bool) -> Job:
        """The job with one more failed attempt on record."""
        latest = FailedAttempt(utc_now(), counted, failure.code, failure.message, failure.hint)
        return self.evolve(failed_attempts=(*self.failed_attempts, latest)[-FAILED_ATTEMPTS_MAX:])

    def given_back(self) -> Job:
        """The job after an attempt that does not count."""
        return self.evolve(attempts=max(0, self.attempts - 1), suspect=False)

    def suspected(self) -> Job:
        """The job after the death of a worker that held several: the attempt does not count, and the job runs alone."""
        return self.evolve(attempts=max(0, self.attempts - 1), suspect=True)

    def failed_once(self) -> Job:
        """The job after an attempt that failed and counts."""
        return self.evolve(suspect=False)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running job is, in audio seconds; it never decreases."""

    phase: Phase = Phase.QUEUED
    processed_seconds: float = 0.0
    duration_seconds: float | None = None
    speed: float | None = None
    eta_seconds: float | None = None
    queue_position: int | None = None

    @property
    def percent(self) -> float:
        """The progress from 0 to 100; 0 while the length is unknown."""
        if not self.duration_seconds:
            return 0.0
        return round(min(100.0, 100.0 * self.processed_seconds / self.duration_seconds), 1)


@dataclass(frozen=True, slots=True)
class Result:
    """What a worker reports about a finished job; the transcripts are files in the job's directory."""

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
    duplicate_of: str | None = None  # the place of the earlier job that these transcripts belong to
    languages: tuple[tuple[float, float, str], ...] = ()  # start, end and language of each part, in seconds
    digests: dict[str, str] = field(
        default_factory=dict
    )  # SHA-256 by format: a file that differs was changed by a user
    voices: KnownVoices | None = None  # None: there were no samples of known voices

    @property
    def rendered(self) -> tuple[str, ...]:
        """The formats that are in this job's own directory and must be published."""
        return self.outputs if self.duplicate_of is None else ()

    @property
    def speed(self) -> float | None:
        """The speed of the work in audio seconds per second."""
        return round(self.duration_seconds / self.processing_seconds, 2) if self.processing_seconds > 0 else None


def utc_now(ago_seconds: float = 0.0) -> str:
    """The current time, or a time some seconds ago, as records hold it: UTC, ISO 8601, milliseconds."""
    return (
        (datetime.now(UTC) - timedelta(seconds=ago_seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def original_url(place: str) -> str:
    """The relative URL (RFC 3986, section 4.2) of an original in done/, as seen from its transcripts in the outbox."""
    return "../" * (place.count("/") + 1) + "done/" + quote(os.fsencode(place))


def _short(text: str) -> str:
    return one_line(text[:ERROR_TEXT_MAX])
