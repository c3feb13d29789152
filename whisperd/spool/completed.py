"""Completed jobs whose transcripts are still in the outbox, so that the same content need not be transcribed again.

Status files are the only record of them. Whoever remembers one reads it again before pointing anybody to its transcripts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whisperd.core.display import printable
from whisperd.core.job import Result, Status
from whisperd.spool import names, status_file
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.spool.layout import Layout


@dataclass(frozen=True, slots=True)
class CompletedJob:
    """A completed job as its status file describes it."""

    place: str
    size_bytes: int
    result: Result
    options: dict[str, Any]  # what its profiles and tickets set


def find_all(layout: Layout) -> Iterator[CompletedJob | None]:
    """Find every job whose transcripts are in the outbox, one step at a time; None for a step without one."""
    for found in status_file.find_all(layout):
        if found is None:
            yield None
            continue
        folders, file = found
        yield find(layout, names.join(folders, file.removesuffix(names.STATUS_SUFFIX)))


def find(layout: Layout, place: str) -> CompletedJob | None:
    """Read the completed job of a place; None unless its status file says so and every transcript that it names exists.

    A duplicate is not found, and neither is a name so long that its status file's had to be shortened: its transcripts
    have other names than the status file says.
    """
    folders, file = names.split(place)
    try:
        with Folder(layout.outbox, folders) as outbox:
            document = status_file.decode(outbox.read(names.status_file(file)))
            if document is None or document["status"] != Status.COMPLETED or document.get("duplicate_of") is not None:
                return None
            for kind, shown in document["outputs"].items():
                output = names.output(file, kind)
                if shown != printable("outbox/" + names.join(folders, output)) or not outbox.exists(output):
                    return None
            options = dict(document.get("options") or {})
            return CompletedJob(place, int(document["size_bytes"]), _result(document, place), options)
    except (OSError, KeyError, TypeError, ValueError, ArithmeticError, AttributeError):
        return None  # a person has edited it, or taken it away


def _result(document: dict[str, Any], place: str) -> Result:
    """The result of a job with the same content: the same transcripts, and no work."""
    return Result(
        duration_seconds=float(document["duration_seconds"]),
        processing_seconds=0.0,
        sha256=str(document["sha256"]),
        language=document["language"],
        language_probability=document["language_probability"],
        engine=document["engine"],
        model=document["model"],
        device=document["device"],
        outputs=tuple(document["outputs"]),
        quality=document["quality"],
        duplicate_of=place,
    )
