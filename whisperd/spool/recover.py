"""What a daemon that died left behind, and what becomes of each piece."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from whisperd.core.display import printable
from whisperd.core.job import Failure, Job, Result, Signature, utc_now
from whisperd.spool import claims, names, notes, pair, records, sidecar
from whisperd.spool.durable import Folder, is_reserved, remove_tree
from whisperd.spool.earlier import standing
from whisperd.spool.partial import outputs

if TYPE_CHECKING:
    from whisperd.spool.layout import Layout
    from whisperd.spool.store import Store

_ORIGINAL = re.compile(r"original(\.[a-z0-9]+)?")


@dataclass(slots=True)
class Recovery:
    """The jobs found in `.work`, by what is to be done with them."""

    queued: list[Job] = field(default_factory=list)
    to_finish: list[tuple[Job, Result]] = field(default_factory=list)
    to_fail: list[tuple[Job, Failure]] = field(default_factory=list)
    returned: list[tuple[Job, str]] = field(default_factory=list)  # and their names in the inbox
    removed: int = 0


def recover(store: Store, *, max_attempts: int) -> Recovery:
    """Read `.work`; nothing of a user's is removed.

    A directory without an original is a claim that never happened or an end that was reached: it goes. One with a result
    or a failure on record was being published: that is done again. One that no worker has had and that is not what had
    settled goes back to the inbox. Anything else is queued in the order of its claim, marked as a suspect if it was
    running; one that was running `max_attempts` times fails.
    """
    found = Recovery()
    layout = store.layout
    layout.empty_staging()
    with Folder(layout.work) as work:
        for job_id in _directories(work):
            with Folder(layout.work, (job_id,)) as own:
                original = next((entry for entry in os.listdir(own.fd) if _ORIGINAL.fullmatch(entry)), None)
                if original is None or is_reserved(own, original):
                    remove_tree(work, job_id)
                    found.removed += 1
                    continue
                job = records.load_job(own)
                if job is None:
                    found.to_fail.append(_rescued(store, own, job_id, original))
                    continue
                claims.complete(layout, own, job)
                store.places.hold(job.id, job.place, outputs(job.formats, job.spec), job.ticket)
                if failure := records.load_failure(own):
                    found.to_fail.append((job, failure))
                elif (result := records.load_result(own)) and _still_holds(layout, result):
                    found.to_finish.append((job, result))
                elif job.attempts >= max_attempts:
                    found.to_fail.append((job, crashed_too_often(job)))
                elif (name := _returned(store, own, job)) is not None:
                    found.returned.append((job, name))
                else:
                    found.queued.append(job)
    found.queued.sort(key=lambda job: (job.claimed_at, job.id))
    return found


def crashed_too_often(job: Job) -> Failure:
    """The end of a job that was running each time its worker or the daemon died."""
    return Failure(
        "worker_died",
        f"whisperd or its worker died {job.attempts} times while working on this file",
        "look into the journal for the reason; move the file back into the inbox to try again",
        retryable=True,
        stage="transcribing",
    )


def _returned(store: Store, own: Folder, job: Job) -> str | None:
    """The name in the inbox under which an upload settles again that was swapped or changed as it was taken, if it was."""
    if job.started_at is not None or claims.is_what_settled(own, job):
        return None  # of what a worker had, `start` has written down what it was
    with contextlib.suppress(OSError):
        return store.give_back(job)
    return None


def _still_holds(layout: Layout, result: Result) -> bool:
    """Whether the transcripts of a result are to be had: those of an earlier job may have been taken away meanwhile."""
    if result.duplicate_of is None:
        return True
    earlier = standing(layout, result.duplicate_of)
    return earlier is not None and earlier.result == result


def _directories(work: Folder) -> list[str]:
    with os.scandir(work.fd) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        )


def _rescued(store: Store, own: Folder, job_id: str, original: str) -> tuple[Job, Failure]:
    """An original whose record is damaged: its name is lost, its bytes are not."""
    status = os.stat(original, dir_fd=own.fd, follow_symlinks=False)
    name = f"recovered-{job_id}{original.removeprefix('original')}"
    once = _retract(store, job_id, name)
    ticket = ".yaml" if own.exists(pair.TICKET) else ""
    place = store.places.choose(job_id, name, (), ticket)
    now = utc_now()
    job = Job(job_id, name, place, original, Signature.of(status), now, now, ticket=ticket)
    return job, Failure(
        "record_damaged",
        f"the record of this job was damaged; the file{once} is kept as {printable(name)}",
        "check the disk; rename the file and move it back into the inbox to try again",
        retryable=True,
    )


def _retract(store: Store, job_id: str, new_name: str) -> str:
    """Remove the sidecar and the text that the job had under its old name, which nobody would bring up to date; returns that, in words."""
    once = ""
    for folders, file in filter(None, notes.sidecars(store.layout)):
        with contextlib.suppress(OSError), Folder(store.layout.outbox, folders) as outbox:
            document = sidecar.decode(outbox.read(file))
            if document and document["id"] == job_id and document["name"] != new_name:
                once = f", once {document['name']},"
                os.unlink(file, dir_fd=outbox.fd)
                store.partials.remove(job_id, names.join(folders, file.removesuffix(names.SIDECAR_SUFFIX)))
    return once
