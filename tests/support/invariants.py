"""What must hold of a spool whatever happened to it; one place, so that every test of faults asks for the same.

Read by digest, since a job may have got a number: every upload in exactly one place, every transcript there and nobody
else's, no `completed` without all that it promises.
"""

from __future__ import annotations

import collections
import hashlib
from typing import TYPE_CHECKING

from whisperd.core.display import printable
from whisperd.intake import cancel_requests
from whisperd.spool import status_file
from whisperd.spool.names import OVERVIEW_PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ENDS = {"completed": "done", "failed": "failed"}  # status -> where the original is then


def check_spool(
    root: Path,
    uploads: Mapping[str, str | bytes],
    *,
    settled: bool = True,
    transcripts: Mapping[str, str] | None = None,
) -> list[str]:
    """Every rule that a spool breaks, in words; empty if all is well.

    Nothing may be at work in it meanwhile, or what moves is seen twice or not at all.

    Args:
        root: the spool.
        uploads: name -> content, or its SHA-256 in hexadecimal, of all that was ever uploaded.
        settled: every job has ended, as after `run --once`; False: at any instant, as after a SIGKILL.
        transcripts: SHA-256 of an upload -> what its `.txt` must hold.
    """
    wanted = {name: content if isinstance(content, str) else digest(content) for name, content in uploads.items()}
    originals = dict(_originals(root))
    outbox = {f"outbox/{shown}": path for shown, path in _files(root / "outbox")}
    outbox.pop(OVERVIEW_PAGE, None)  # the overview, which belongs to no job
    documents = {shown: found for shown, path in outbox.items() if (found := status_file.decode(path.read_bytes()))}
    problems = [*_places(wanted, originals)]
    for shown, document in documents.items():
        problems += [f"{shown}: {problem}" for problem in _promises(root, document, originals, outbox, wanted)]
        problems += [f"{shown}: {problem}" for problem in _words(document, outbox, transcripts or {})]
    problems += _ends(originals, documents)
    if settled:
        problems += _leftovers(root, originals, outbox, documents)
    return problems


def digest(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below a folder, as a sidecar would show its path; names with a dot are nobody's uploads."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            yield printable(str(path.relative_to(folder))), path


def _originals(root: Path) -> Iterator[tuple[str, str]]:
    """Where -> SHA-256 of every upload."""
    for room in ("inbox", "done", "failed"):
        for shown, path in _files(root / room):
            if room != "inbox" or not shown.endswith(cancel_requests.SUFFIX):  # asks for a job's end, is no upload
                yield f"{room}/{shown}", digest(path.read_bytes())
    for path in sorted((root / ".work").glob("*/original*")):
        yield f".work/{path.parent.name}", digest(path.read_bytes())


def _places(wanted: Mapping[str, str], originals: Mapping[str, str]) -> Iterator[str]:
    """Every upload in exactly one place, and nothing else there."""
    left = collections.Counter(wanted.values())
    left.subtract(originals.values())
    for sha256, count in left.items():
        names = [name for name, of in wanted.items() if of == sha256]
        where = [place for place, of in originals.items() if of == sha256]
        if count > 0:
            yield f"lost: {names}, found in {where}"
        elif count < 0:
            yield f"{'doubled' if names else 'nobody uploaded this'}: {names}, found in {where}"


def _promises(
    root: Path,
    document: dict,
    originals: Mapping[str, str],
    outbox: Mapping[str, Path],
    wanted: Mapping[str, str],
) -> Iterator[str]:
    """What a sidecar says is so."""
    status, original = document["status"], document["original"]
    if status not in ENDS:
        return
    ends_later = next((root / ".work" / str(document["id"])).glob("original*"), None) is not None
    if original not in originals and not ends_later:
        yield f"{status}, but {original} is not there"
    if status == "failed":
        return
    for kind, output in document["outputs"].items():
        if output not in outbox:
            yield f"completed, but {kind} is not there: {output}"
        elif not outbox[output].stat().st_size:
            yield f"completed, but {output} is empty"
    if document["sha256"] != originals.get(original, document["sha256"]):
        yield f"completed, but {original} is another recording"
    if document["sha256"] != wanted.get(document["name"], document["sha256"]):
        yield "completed, but with the transcript of another recording"


def _words(document: dict, outbox: Mapping[str, Path], transcripts: Mapping[str, str]) -> Iterator[str]:
    """The right text."""
    path = outbox.get(document["outputs"].get("txt", ""))
    words = transcripts.get(document["sha256"] or "")
    if document["status"] == "completed" and path is not None and words is not None and path.read_text() != words:
        yield f"{path.read_text()!r} instead of {words!r}"


def _ends(originals: Mapping[str, str], documents: Mapping[str, dict]) -> Iterator[str]:
    """Each original that was brought to an end has one sidecar that says so, and no transcript is anybody else's too."""
    said = collections.Counter((document["status"], document["original"]) for document in documents.values())
    for status, room in ENDS.items():
        for place in originals:
            if place.startswith(f"{room}/") and said[status, place] != 1:
                yield f"{place}: {said[status, place]} sidecars say {status}"
    owned = collections.Counter(_outputs(documents))
    yield from (f"{output}: {count} jobs claim it" for output, count in owned.items() if count > 1)


def _outputs(documents: Mapping[str, dict]) -> Iterator[str]:
    for document in documents.values():
        if document["status"] == "completed" and document.get("duplicate_of") is None:
            yield from document["outputs"].values()


def _leftovers(
    root: Path, originals: Mapping[str, str], outbox: Mapping[str, Path], documents: Mapping[str, dict]
) -> Iterator[str]:
    """Nothing is under way, nothing half-written, and no sidecar says otherwise."""
    owned = {*_outputs(documents)}
    yield from (f"{shown}: no completed job has it" for shown in outbox.keys() - documents.keys() - owned)
    for shown, document in documents.items():
        waits = document["id"] is None and document["source"] in originals
        if document["status"] not in ENDS and not waits:
            yield f"{shown}: still {document['status']}, {document['phase']}"
    yield from (f".work/{path.name}: left over" for path in (root / ".work").glob("[!.]*"))
    yield from (f"{path.relative_to(root)}: half-written" for path in root.rglob("*.tmp"))
