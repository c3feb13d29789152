"""What is in the directory of a job: its original, the ticket that belongs to it, and its records.

Original and ticket are moved in from the inbox, and out when the job ends. The original goes in first and leaves last: a
directory without an original is removed at the next start. The records, `job.json`, `result.json` and `failure.json`, are
ASCII JSON, so that names that are not UTF-8 survive as surrogate escapes. A damaged record reads as None. What a newer
release has added to a record is dropped, so that its jobs survive a return to this one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any

from whisperd.core.job import FailedAttempt, Failure, Job, Result, Signature
from whisperd.core.options import JobSpec, to_json
from whisperd.core.transcript import KnownVoices
from whisperd.spool import names
from whisperd.spool.durable import is_half_moved, is_reserved, move, write

if TYPE_CHECKING:
    from whisperd.spool.durable import Folder

JOB = "job.json"
RESULT = "result.json"
FAILURE = "failure.json"
TICKET = "ticket"


def take_ticket(job: Job, inbox: Folder, file: str, own: Folder) -> None:
    """Move the ticket of an upload into the job's directory; one that was changed since it was read stays. May be repeated.

    A ticket that cannot be moved is left: what it says is on record already.
    """
    if not job.ticket:
        return
    with contextlib.suppress(OSError):
        name = _in_any_case(inbox, file, job.ticket)
        if own.exists(TICKET):
            if is_half_moved(own, TICKET, inbox, name):
                os.unlink(name, dir_fd=inbox.fd)
                inbox.sync()
        elif Signature.of(os.stat(name, dir_fd=inbox.fd, follow_symlinks=False)) == job.ticket_signature:
            move(inbox, name, own, TICKET)


def move_out(own: Folder, job: Job, target: Folder, file: str) -> None:
    """Move ticket and original to the folder where the job ends; may be repeated, wherever it was interrupted.

    Raises:
        FileExistsError: a name is taken; both are back in the job's directory.
    """
    if not own.exists(job.original):
        return
    ticket = names.ticket(file, job.ticket)
    has_ticket = bool(job.ticket) and own.exists(TICKET)
    if has_ticket:
        move(own, TICKET, target, ticket)
    try:
        move(own, job.original, target, file)
    except FileExistsError:
        if has_ticket:
            move(target, ticket, own, TICKET)
        raise


def return_to(own: Folder, job: Job, inbox: Folder, file: str) -> str:
    """Move both back into the inbox, under the first name like `file`, `file-2` that is free for both; returns the name."""
    if not own.exists(job.original):
        return file
    has_ticket = bool(job.ticket) and own.exists(TICKET)
    refused: set[str] = set()  # names that the move found taken, though they had looked free

    def is_taken(number: int) -> bool:
        name = names.numbered(file, number)
        if name in refused or (has_ticket and inbox.exists(names.ticket(name, job.ticket))):
            return True
        # an interrupted try has reserved the name, or has linked the original there: the name is still the right one
        return inbox.exists(name) and not (is_reserved(inbox, name) or is_half_moved(own, job.original, inbox, name))

    while True:
        name = names.numbered(file, names.first_free(is_taken))
        try:
            move_out(own, job, inbox, name)
        except FileExistsError:
            refused.add(name)
            continue
        except OSError:
            if own.exists(job.original):
                raise  # otherwise it was moved, and only the fsync failed
        return name


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
            failed_attempts=tuple(
                FailedAttempt(**_known(FailedAttempt, each)) for each in fields.pop("failed_attempts", ())
            ),
            **_known(Job, fields),
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        return None


def load_result(folder: Folder) -> Result | None:
    """Read the result, which is there once a worker has rendered everything."""
    fields = _load(folder, RESULT)
    try:
        languages = tuple((start, end, code) for start, end, code in fields.pop("languages", ()))
        voices = fields.pop("voices", None)
        return Result(
            outputs=tuple(fields.pop("outputs")),
            languages=languages,
            voices=None if voices is None else KnownVoices.from_json(voices),
            **_known(Result, fields),
        )
    except (KeyError, TypeError, ValueError):
        return None


def load_failure(folder: Folder) -> Failure | None:
    """Read the failure, which is there once it is decided that the job fails."""
    try:
        return Failure(**_known(Failure, _load(folder, FAILURE)))
    except TypeError:
        return None


def _in_any_case(inbox: Folder, file: str, suffix: str) -> str:
    """Find the name of an upload's ticket in the inbox, whose case may differ from that of the upload."""
    usual = file + suffix
    if inbox.exists(usual):
        return usual
    return next((name for name in os.listdir(inbox.fd) if name.casefold() == usual.casefold()), usual)


def _load(folder: Folder, name: str) -> dict[str, Any]:
    try:
        fields = json.loads(folder.read(name))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _known(record: type, fields: dict[str, Any]) -> dict[str, Any]:
    names_of_fields = {field.name for field in dataclasses.fields(record)}
    return {name: value for name, value in fields.items() if name in names_of_fields}
