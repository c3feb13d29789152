"""Earlier jobs whose transcripts still stand, so that the same content need not be transcribed again.

Sidecars are the only record of them. What was remembered is a hint: a sidecar, and the transcripts that it names, are
looked at afresh before anything is made to point there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whisperd.core.display import printable
from whisperd.core.job import Result, Status
from whisperd.spool import names, sidecar
from whisperd.spool.durable import Folder
from whisperd.spool.notes import sidecars

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.spool.layout import Layout


@dataclass(frozen=True, slots=True)
class Earlier:
    """A completed job: where its files are, how long its upload was, what was asked and what became of it."""

    place: str
    size_bytes: int
    result: Result
    options: dict[str, Any]  # what its profiles and tickets said


def completed(layout: Layout) -> Iterator[Earlier | None]:
    """Every job whose transcripts stand in the outbox, one step at a time; None for one without."""
    for found in sidecars(layout):
        if found is None:
            yield None
            continue
        folders, file = found
        yield standing(layout, names.join(folders, file.removesuffix(names.SIDECAR_SUFFIX)))


def standing(layout: Layout, place: str) -> Earlier | None:
    """The completed job of this place; None unless its sidecar says so and every transcript that it names is there.

    A name so long that its sidecar's had to be shortened is not found by the sidecar's name: its transcripts are called
    otherwise than the sidecar says. Nor is a job that was itself a duplicate.
    """
    folders, file = names.split(place)
    try:
        with Folder(layout.outbox, folders) as outbox:
            document = sidecar.decode(outbox.read(names.sidecar(file)))
            if document is None or document["status"] != Status.COMPLETED or document.get("duplicate_of") is not None:
                return None
            for kind, shown in document["outputs"].items():
                output = names.output(file, kind)
                if shown != printable("outbox/" + names.join(folders, output)) or not outbox.exists(output):
                    return None
            options = dict(document.get("options") or {})
            return Earlier(place, int(document["size_bytes"]), _result(document, place), options)
    except (OSError, KeyError, TypeError, ValueError, ArithmeticError, AttributeError):
        return None  # a person has edited it, or taken it away


def _result(document: dict[str, Any], place: str) -> Result:
    """What a job with the same content comes to, without any work."""
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
