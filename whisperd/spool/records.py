"""The private records of a claimed job: `job.json`, `result.json`, `failure.json` in its directory.

They are ASCII JSON so that names that are not UTF-8 survive the round trip as surrogate escapes.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from whisperd.job import Failure, Job, Result, Signature
from whisperd.options import Order, OutputOptions, TranscribeOptions, VadOptions
from whisperd.spool.durable import Folder, write

JOB = "job.json"
RESULT = "result.json"
FAILURE = "failure.json"


def save(folder: Folder, name: str, value: Job | Result | Failure) -> None:
    """Write one record durably."""
    write(folder, name, json.dumps(dataclasses.asdict(value)).encode("ascii"))


def load_job(folder: Folder) -> Job | None:
    """The job record; None where it is missing or damaged."""
    fields = _load(folder, JOB)
    try:
        signature = Signature(**fields.pop("signature"))
        order = _order(fields.pop("order", None))
        ticket = fields.pop("ticket_signature", None)
        return Job(
            signature=signature,
            formats=tuple(fields.pop("formats")),
            order=order,
            ticket_signature=None if ticket is None else Signature(**ticket),
            **fields,
        )
    except (KeyError, TypeError, AttributeError):
        return None


def _order(fields: dict[str, Any] | None) -> Order | None:
    """An order as it was written, perhaps by an earlier release."""
    if fields is None:
        return None
    vad = fields.pop("vad")
    return Order(
        transcribe=_value(TranscribeOptions, fields.pop("transcribe")),
        output=_value(OutputOptions, fields.pop("output")),
        vad=None if vad is None else _value(VadOptions, vad),
        changes={key: _frozen(each) for key, each in fields.pop("changes").items()},
        **{key: _frozen(each) for key, each in _known(Order, fields).items()},
    )


def _value(kind: Any, fields: dict[str, Any]) -> Any:
    return kind(**{key: _frozen(each) for key, each in _known(kind, fields).items()})


def _known(kind: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """Without what this release no longer has."""
    return {key: each for key, each in fields.items() if key in kind.__dataclass_fields__}


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def load_result(folder: Folder) -> Result | None:
    """The result record, present once a worker has rendered everything."""
    fields = _load(folder, RESULT)
    try:
        return Result(outputs=tuple(fields.pop("outputs")), **fields)
    except (KeyError, TypeError):
        return None


def load_failure(folder: Folder) -> Failure | None:
    """The failure record, present once it is decided that the job has failed."""
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
