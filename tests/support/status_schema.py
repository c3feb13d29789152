"""What a status file and `whisperd status --json` contain: each field with its type and meaning, as the documentation shows it.

`generate_docs.py` makes the tables and the JSON Schema files of `.github/docs/` from these classes. Later versions may add
fields, so that a reader must ignore those that it does not know.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import jsonschema
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt

from whisperd.core.job import Phase, Status

DOCS = Path(__file__).parents[2] / ".github/docs"


class Document(BaseModel):
    """Base: fields may be added; their values have exactly the right type."""

    model_config = ConfigDict(extra="allow", strict=True)


class Problem(Document):
    """Why a job failed."""

    code: str = Field(description="a stable word, see the table of error codes")
    message: str = Field(description="what happened")
    hint: str = Field(description="what to do about it; may be empty")
    retryable: bool = Field(description="whether another attempt can help")
    stage: str = Field(description="the step that failed: uploading, decoding, transcribing, publishing; may be empty")


class LanguagePart(Document):
    """A part of the recording in one language."""

    from_: NonNegativeFloat = Field(alias="from", description="its start, in seconds")
    to: NonNegativeFloat = Field(description="its end, in seconds")
    language: str = Field(description="the code of its language")


class Correction(Document):
    """A correction that was made in the transcripts of a completed job."""

    at: datetime = Field(description="when it was made")
    by: str = Field(description="the ticket or the user that asked for it")
    speakers: dict[str, str] = Field(description="new names of speakers by old ones")
    replacements: list[dict[str, Any]] = Field(description="what was replaced, with counts")
    formats: list[str] = Field(description="formats that it added")
    options: dict[str, Any] = Field(description="options of subtitles that it set")
    segments: NonNegativeInt = Field(0, description="how many entries of `segments` it had")
    kept: dict[str, str] = Field(description="format -> path of a file that stayed because somebody had changed it")


class FailedAttempt(Document):
    """An attempt that failed and was repeated."""

    at: datetime = Field(description="when")
    counted: bool = Field(description="false: it was not the fault of the job")
    code: str = Field(description="as in `error`")
    message: str = Field(description="what happened")
    hint: str = Field(description="what to do about it; may be empty")


class StatusFile(Document):
    """The status file of one upload, version 1."""

    schema_: Literal[1] = Field(alias="schema", description="the version of this format; fields may be added to it")
    id: str | None = Field(description="the id of the job; null while the file is still in the inbox")
    name: str = Field(
        description="the path of the upload relative to the inbox; control characters and bytes that are not UTF-8 are escaped"
    )
    source: str = Field(description="the same relative to the root")
    status: Status = Field(description="`pending`, `in_progress`, `completed` or `failed`")
    phase: Phase = Field(
        description="`uploading` (not yet claimed), `queued`, `decoding`, `transcribing`, `publishing`, `ended`"
    )
    reason: str | None = Field(description="why the file is not claimed, or why the job waits for another attempt")
    progress: float = Field(ge=0, le=100, description="audio seconds done, in percent of all; it never decreases")
    duration_seconds: NonNegativeFloat | None = Field(description="the length of the audio")
    processed_seconds: NonNegativeFloat | None = Field(description="how much of it is transcribed")
    speed: NonNegativeFloat | None = Field(description="audio seconds per second")
    eta_seconds: NonNegativeFloat | None = Field(description="the estimated seconds left")
    queue_position: NonNegativeInt | None = Field(description="position in the queue; 1 is next")
    attempts: NonNegativeInt = Field(description="attempts that counted so far")
    failed_attempts: list[FailedAttempt] = Field(
        description="the latest ones that failed and were repeated, oldest first: `at`, `counted` (false: it was not the fault of the job), `code`, `message`, `hint`"
    )
    profile: str | None = Field(description="the globs of the profiles that match; null if none does")
    tickets: list[str] = Field(description="the tickets that were followed, relative to the inbox")
    options: dict[str, Any] = Field(description="what profiles and tickets set, key by key")
    origins: dict[str, str] = Field(description="which profile or ticket set each of these keys")
    model: str | None = Field(description="the model that transcribed the file; null until then")
    engine: str | None = Field(description="the engine that did")
    device: str | None = Field(description="the device that did")
    language: str | None = Field(description="the language as set, or the main one as detected")
    language_probability: float | None = Field(ge=0, le=1, description="the probability of a detected language")
    languages: list[LanguagePart] | None = Field(
        description="`from`, `to` and `language` of each part of the recording, in seconds"
    )
    voices: dict[str, Any] | None = Field(
        description="whom the samples of [known voices](speakers.md#known-voices) named: `recognized` has the score of each name, `unusable` the samples that could not be used, and why"
    )
    outputs: dict[str, str] = Field(description="format -> path of the transcript relative to the root")
    digests: dict[str, str] = Field(
        description="format -> SHA-256 of what whisperd wrote; a file that differs was changed by somebody, and is never replaced"
    )
    corrections: list[Correction] = Field(
        description="what was [put right afterwards](corrections.md), the latest last: `at`, `by`, `speakers`, `replacements` with counts, `formats`, `options`, `segments` (how many entries), and in `kept` the files that stayed because somebody had changed them"
    )
    duplicate_of: str | None = Field(
        description="the earlier upload of the same content whose transcripts `outputs` names (`intake.duplicates: skip`)"
    )
    original: str | None = Field(description="where the upload is, relative to the root, after the end of the job")
    sha256: str | None = Field(pattern="^[0-9a-f]{64}$", description="the SHA-256 of the upload")
    size_bytes: NonNegativeInt | None = Field(description="the size of the upload")
    created_at: datetime | None = Field(description="when the upload was first seen: UTC, ISO 8601, as all times")
    claimed_at: datetime | None = Field(description="when it was claimed")
    started_at: datetime | None = Field(description="when the first attempt began")
    finished_at: datetime | None = Field(description="when the job ended")
    updated_at: datetime = Field(description="when this file was written")
    error: Problem | None = Field(description="`code`, `message`, `hint`, `retryable`, `stage` of a failure")
    quality: dict[str, Any] | None = Field(
        description="measurements of the engine about its work; `gaps`: `from`, `to` and `why` of speech that has no text that can be trusted"
    )


class Disk(Document):
    """The filesystem of the spool."""

    free_bytes: NonNegativeInt
    total_bytes: NonNegativeInt
    wanted_bytes: NonNegativeInt


class Device(Document):
    """A device on which workers run."""

    name: str
    model: str
    workers: NonNegativeInt
    speed: NonNegativeFloat | None
    reason: str | None
    retry_at: datetime | None


class RunningJob(Document):
    """A claimed job that has not ended."""

    id: str
    name: str | None
    status_file: str
    status: str | None
    phase: str | None
    reason: str | None
    progress: float | None
    duration_seconds: float | None
    processed_seconds: float | None
    speed: float | None
    eta_seconds: float | None
    queue_position: float | None
    attempts: float | None
    started_at: str | None


class WaitingUpload(Document):
    """An upload that is not claimed yet."""

    name: str
    size_bytes: NonNegativeInt | None
    reason: str | None


class FailedJob(Document):
    """A file in failed/."""

    name: str
    code: str | None
    message: str | None
    hint: str | None
    finished_at: str | None


class CompletedJob(Document):
    """A job that was completed lately."""

    name: str
    finished_at: str | None
    duration_seconds: float | None
    language: str | None
    speed: float | None


class StatusReport(Document):
    """What `whisperd status --json` prints, version 1."""

    schema_: Literal[1] = Field(alias="schema", description="the version of this format; fields may be added to it")
    root: str = Field(description="the spool")
    daemon_running: bool | None = Field(description="whether a daemon runs; null if this user may not see it")
    daemon_version: str | None = Field(description="its version; null if none runs, or this user may not see it")
    disk: Disk = Field(description="`free_bytes`, `total_bytes`, and `wanted_bytes`, below which nothing is claimed")
    devices: list[Device] = Field(
        description="what workers run on: `name`, `model`, `workers`, `speed` of the last jobs; while it is out of service the `reason` and `retry_at`"
    )
    jobs: list[RunningJob] = Field(
        description="the running ones first: `id`, `name`, `status_file`, and as in the status file `status`, `phase`, `reason`, `progress`, `duration_seconds`, `processed_seconds`, `speed`, `eta_seconds`, `queue_position`, `attempts`, `started_at`"
    )
    inbox: list[WaitingUpload] = Field(description="uploads that wait: `name`, `size_bytes`, `reason`")
    done: NonNegativeInt = Field(description="the number of originals in `done/`")
    completed: list[CompletedJob] = Field(
        description="the last ones: `name`, `finished_at`, `duration_seconds`, `language`, `speed`"
    )
    failed: list[FailedJob] = Field(
        description="the newest first: `name`, `code` (cancelled if somebody ended it), `message`, `hint`, `finished_at`"
    )


def schema_errors(document: dict[str, Any], kind: str = "status") -> list[str]:
    """What the package jsonschema has against a document, by the JSON Schema file of that name in the documentation."""
    schema = json.loads((DOCS / f"{kind}.schema.json").read_text("utf-8"))
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]
