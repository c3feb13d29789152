"""What supervisor and worker say to each other over their pipe: values, and nothing that could run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from whisperd.core.job import Failure, Phase, Result
    from whisperd.core.options import EngineOptions, JobSpec


@dataclass(frozen=True, slots=True)
class Boot:
    """To the worker, once, first: what to load."""

    options: EngineOptions


@dataclass(frozen=True, slots=True)
class Work:
    """To an idle worker: one job. `directory` is the only place that it may write to.

    `title` is what people call the recording, `link` the relative URL that leads to it from where its page will stand.
    """

    job_id: str
    directory: Path
    source: Path
    spec: JobSpec
    title: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """To a busy worker: give the job back at the next occasion."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Quit:
    """To an idle worker: end."""


@dataclass(frozen=True, slots=True)
class Ready:
    """From the worker: the model is loaded and has been tried."""

    engine: str
    model: str
    device: str
    compute_type: str
    load_seconds: float


@dataclass(frozen=True, slots=True)
class BootFailed:
    """From the worker, last: it cannot work, and restarting it would not help."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """From the pipeline itself, so that it proves the job advances and not just that a thread lives."""

    job_id: str
    phase: Phase
    processed_seconds: float
    duration_seconds: float | None
    device_bytes: int | None = None  # memory in use on the GPU


@dataclass(frozen=True, slots=True)
class Finished:
    """From the worker: everything is rendered, durably, in the job's directory."""

    job_id: str
    result: Result


@dataclass(frozen=True, slots=True)
class Failed:
    """From the worker, or said in its place: this attempt failed, and the job is the reason."""

    job_id: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class EngineFailed:
    """From the worker, last: its engine failed unexpectedly and is not used again; `job_ids` were in the batch."""

    failure: Failure
    job_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Released:
    """From the worker: the job was given back as asked."""

    job_id: str


ToWorker = Boot | Work | Release | Quit
FromWorker = Ready | BootFailed | Heartbeat | Finished | Failed | EngineFailed | Released
