"""Reads and writes the records in a job's directory: `job.json`, `result.json` and `failure.json`.

They are ASCII JSON, so that names that are not UTF-8 survive as surrogate escapes. A damaged record reads as None.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, TypeVar

from whisperd.core.job import Failure, Job, Result, Signature
from whisperd.core.options import JobSpec, MediaOptions, OutputOptions, Section, TranscribeOptions, VadOptions
from whisperd.spool.durable import Folder, write

JOB = "job.json"
RESULT = "result.json"
FAILURE = "failure.json"

S = TypeVar("S", bound=Section)


def save(folder: Folder, name: str, value: Job | Result | Failure) -> None:
    """Write one record durably."""
    write(folder, name, json.dumps(dataclasses.asdict(value), default=_plain).encode("ascii"))


def _plain(value: object) -> Any:
    """Turn a group of options into JSON."""
    if isinstance(value, Section):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} cannot be recorded")


def load_job(folder: Folder) -> Job | None:
    """Read the job; None where its record is missing or damaged."""
    fields = _load(folder, JOB)
    try:
        signature = Signature(**fields.pop("signature"))
        order = fields.pop("order", None)  # the name of `spec` in 0.1
        spec = _spec(fields.pop("spec", order))
        ticket = fields.pop("ticket_signature", None)
        return Job(
            signature=signature,
            formats=tuple(fields.pop("formats")),
            spec=spec,
            ticket_signature=None if ticket is None else Signature(**ticket),
            **fields,
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        return None


def _spec(fields: dict[str, Any] | None) -> JobSpec | None:
    """Read a spec that any release has written: in 0.1 two options of `media` were fields of their own."""
    if fields is None:
        return None
    vad = fields.pop("vad")
    media = fields.pop("media", {key: fields[key] for key in ("channels", "speakers") if key in fields})
    return JobSpec(
        transcribe=_section(TranscribeOptions, fields.pop("transcribe")),
        output=_section(OutputOptions, fields.pop("output")),
        media=_section(MediaOptions, media),
        vad=VadOptions(enabled=False) if vad is None else _section(VadOptions, vad),
        changes={key: _frozen(each) for key, each in fields.pop("changes").items()},
        **{key: _frozen(each) for key, each in fields.items() if key in JobSpec.__dataclass_fields__},
    )


def _section(kind: type[S], fields: dict[str, Any]) -> S:
    """Read a group of options, without the keys that this release no longer has."""
    known = {key: _frozen(each) for key, each in fields.items() if key in kind.model_fields}
    return kind.model_validate(known, strict=False)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def load_result(folder: Folder) -> Result | None:
    """Read the result, which is there once a worker has rendered everything."""
    fields = _load(folder, RESULT)
    try:
        return Result(outputs=tuple(fields.pop("outputs")), **fields)
    except (KeyError, TypeError):
        return None


def load_failure(folder: Folder) -> Failure | None:
    """Read the failure, which is there once it is decided that the job fails."""
    try:
        return Failure(**_load(folder, FAILURE))
    except TypeError:
        return None


def _load(folder: Folder, name: str) -> dict[str, Any]:
    try:
        fields = json.loads(folder.read(name))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}
