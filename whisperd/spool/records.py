"""Reads and writes the records in a job's directory: `job.json`, `result.json` and `failure.json`.

They are ASCII JSON, so that names that are not UTF-8 survive as surrogate escapes. A damaged record reads as None.
"""

from __future__ import annotations

import json
from typing import Any

from whisperd.core.job import Failure, Job, Result, Signature
from whisperd.core.options import JobSpec, to_json
from whisperd.spool.durable import Folder, write

JOB = "job.json"
RESULT = "result.json"
FAILURE = "failure.json"


def save(folder: Folder, name: str, value: Job | Result | Failure) -> None:
    """Write one record durably."""
    write(folder, name, json.dumps(value, default=to_json).encode("ascii"))


def load_job(folder: Folder) -> Job | None:
    """Read the job; None where its record is missing or damaged."""
    fields = _load(folder, JOB)
    try:
        signature = Signature(**fields.pop("signature"))
        order = fields.pop("order", None)  # the name of `spec` in 0.1
        spec = fields.pop("spec", order)
        ticket = fields.pop("ticket_signature", None)
        return Job(
            signature=signature,
            formats=tuple(fields.pop("formats")),
            spec=None if spec is None else JobSpec.from_json(spec),
            ticket_signature=None if ticket is None else Signature(**ticket),
            **fields,
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        return None


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
