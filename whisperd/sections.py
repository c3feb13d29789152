"""The sections of whisperd.yaml: every key with its type, range, default and meaning."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from whisperd.options import OutputOptions, Positive, Seconds, Section, TranscribeOptions, VadOptions

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _bytes(value: object) -> object:
    """`2G`, `500M` or a plain number of bytes."""
    if isinstance(value, str):
        number, unit = value.strip().upper().removesuffix("B").removesuffix("I"), ""
        if number and number[-1] in _UNITS:
            number, unit = number[:-1], number[-1]
        try:
            return int(float(number) * _UNITS[unit])
        except ValueError:
            return value
    return value


Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=0)]


def default_models_directory() -> Path:
    """The service's own where whisperd is installed as one, else the user's cache."""
    system = Path("/var/lib/whisperd/models")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return system if system.parent.is_dir() else cache / "whisperd" / "models"


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


Absolute = Annotated[Path, AfterValidator(_absolute)]


class Intake(Section):
    """How uploads are found and when they count as complete."""

    settle_seconds: Positive = Field(
        5.0, description="an upload is complete when nothing about it changed for this long"
    )
    settle_seconds_proven: Positive = Field(
        0.25, description="the same, where the kernel says nobody writes and the container is all there"
    )
    empty_seconds: Seconds = Field(
        60.0, description="an empty file is taken, and fails, after this long; browsers make placeholders"
    )
    truncated_seconds: Seconds = Field(
        3600.0, description="an upload shorter than its header promises fails after this long without a change"
    )
    rescan_seconds: Positive = Field(30.0, description="the whole inbox is read this often, whatever the events said")
    poll_seconds: Positive = Field(5.0, description="the same on network filesystems, where events do not tell of all")
    done_marker: str = Field(
        "",
        pattern=r"^(\.[^/\x00]{1,30})?$",
        description="take X only once X with this suffix is there, such as .done; empty: off",
    )
    duplicates: Literal["process", "skip"] = Field(
        "process",
        description="skip: content that was transcribed before is not again, its status file points to the earlier transcripts",
    )
    ignore: tuple[str, ...] = Field((), description="globs of names that are never uploads, besides the built-in list")
    min_free: Bytes = Field(500 << 20, description="below this much free room nothing is claimed: bytes, or 500M, 2G")


class Pool(Section):
    """Worker processes and what is expected of them."""

    workers: int = Field(1, ge=1, le=256, description="processes, each with its own copy of the model")
    jobs_per_worker: int = Field(
        8, ge=1, le=256, description="jobs whose windows share the batches of a worker; 1 with sequential decoding"
    )
    idle_unload_seconds: Seconds = Field(
        0.0, description="a worker without a job for so long ends and gives its memory back; 0: never"
    )
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads per worker; null: all cores, shared out")
    queue_size: int = Field(
        100, ge=1, le=100_000, description="claimed jobs that may wait; the rest waits in the inbox"
    )
    max_attempts: int = Field(3, ge=1, le=100, description="a file that fails or crashes this often goes to failed/")
    retry_seconds: Seconds = Field(30.0, description="pause before a second attempt, doubled for each further one")
    heartbeat_seconds: Positive = Field(600.0, description="a running job that says nothing for this long is stopped")
    deadline_seconds: Positive = Field(600.0, description="a job may take this long ...")
    deadline_factor: Positive = Field(50.0, description="... plus this many times the length of its audio")
    boot_seconds: Positive = Field(600.0, description="a worker must have loaded its model after this long")
    max_memory: Annotated[Bytes, Field(gt=0)] | None = Field(
        None, description="a worker that holds more than this after a job is replaced: bytes, or 2G; null: never"
    )
    stop_grace_seconds: Seconds = Field(
        20.0, description="on stop, running jobs may go on this long before they are released"
    )


class Pages(Section):
    """Pages for people with a browser and no shell."""

    index: bool = Field(default=True, description="keep outbox/index.html: what runs, waits, is done and has failed")


def _settable() -> dict[str, tuple[str, str]]:
    keys = {field: ("transcription", field) for field in TranscribeOptions.model_fields}
    keys |= {field: ("output", field) for field in OutputOptions.model_fields}
    keys |= {field: ("media", field) for field in ("channels", "speakers")}
    return keys | {f"vad.{field}": ("vad", field) for field in VadOptions.model_fields}


SETTABLE = _settable()  # by profiles and tickets, besides `model`: their key -> section and field here


class Tickets(Section):
    """Options as a file: `interview.mp3.yaml` beside interview.mp3, `_whisperd.yaml` for a folder and those in it."""

    enabled: bool = Field(default=True, description="false: tickets are left lying, and followed by nobody")
    allow: tuple[str, ...] = Field(
        (
            "language",
            "task",
            "initial_prompt",
            "vocabulary",
            "beam_size",
            "word_timestamps",
            "formats",
            "max_line_width",
            "max_line_count",
            "max_words_per_line",
            "highlight_words",
            "partial",
            "channels",
            "speakers",
            "vad.enabled",
        ),
        description="what they may set; model among it means those that the configuration names",
    )

    @field_validator("allow")
    @classmethod
    def _are_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [key for key in value if key != "model" and key not in SETTABLE]:
            raise ValueError(f"no such option: {', '.join(unknown)}")
        return value
