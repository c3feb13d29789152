"""Takes over the jobs that a stopped or killed daemon has left in `.work`."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from whisperd.core.display import printable
from whisperd.core.job import Failure, Job, Result, Signature, utc_now
from whisperd.spool import claim, job_directory, names, status_file
from whisperd.spool.durable import Folder, is_reserved, remove_tree
from whisperd.spool.publish import kinds_of

if TYPE_CHECKING:
    from whisperd.spool.layout import Layout
    from whisperd.spool.store import Store

_ORIGINAL = re.compile(r"original(\.[a-z0-9]+)?")


@dataclass(slots=True)
class Recovery:
    """The jobs that were found in `.work`, by what is to be done with each."""

    queued: list[Job] = field(default_factory=list)
    to_finish: list[tuple[Job, Result]] = field(default_factory=list)
    to_fail: list[tuple[Job, Failure]] = field(default_factory=list)
    returned: list[tuple[Job, str]] = field(default_factory=list)  # and their names in the inbox
    removed: int = 0


def recover(store: Store, *, max_attempts: int) -> Recovery:
    """Read `.work` and decide what becomes of each job; nothing of a user's is removed.

    - A directory without an original is a claim that never happened, or an end that was reached: it is removed.
    - A job with a result or a failure on record was being published: that is done again.
    - A job that no worker has had and whose original is not the file that had settled goes back to the inbox.
    - A job that was running `max_attempts` times fails.
    - Any other is queued in the order of the claims, as a suspect if it was running.

    Raises:
        OSError: something cannot be read; nothing is decided on that.
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
                job = job_directory.load_job(own)
                if job is None:
                    found.to_fail.append(_rescued(store, own, job_id, original))
                    continue
                claim.complete(layout, own, job)
                store.naming.hold(job.id, job.place, kinds_of(job.formats, job.spec), job.ticket)
                if failure := job_directory.load_failure(own):
                    found.to_fail.append((job, failure))
                elif (result := job_directory.load_result(own)) and _still_holds(layout, result):
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
    """The failure of a job that was running each time its worker or the daemon died."""
    return Failure(
        "worker_died",
        f"whisperd or its worker died {job.attempts} times while working on this file",
        "look into the journal for the reason; move the file back into the inbox to try again",
        retryable=True,
        stage="transcribing",
    )


def _returned(store: Store, own: Folder, job: Job) -> str | None:
    """Return an upload that was swapped or changed while it was claimed; its name in the inbox, or None."""
    if job.started_at is not None or claim.is_what_settled(own, job):
        return None  # once a worker has had it, `Store.start` has recorded what it was then
    with contextlib.suppress(OSError):
        return store.release(job)
    return None


def _still_holds(layout: Layout, result: Result) -> bool:
    """Whether the transcripts of a result exist: those that a duplicate points to may have been taken away meanwhile."""
    if result.duplicate_of is None:
        return True
    original = status_file.find_completed(layout, result.duplicate_of)
    return original is not None and original.result == result


def _directories(work: Folder) -> list[str]:
    with os.scandir(work.fd) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        )


def _rescued(store: Store, own: Folder, job_id: str, original: str) -> tuple[Job, Failure]:
    """Make a failed job of an original whose record is damaged: its name is lost, its bytes are kept."""
    status = os.stat(original, dir_fd=own.fd, follow_symlinks=False)
    name = f"recovered-{job_id}{original.removeprefix('original')}"
    once = _retract(store, job_id, name)
    ticket = ".yaml" if own.exists(job_directory.TICKET) else ""
    place = store.naming.choose(job_id, name, (), ticket)
    now = utc_now()
    job = Job(job_id, name, place, original, Signature.of(status), now, now, ticket=ticket)
    return job, Failure(
        "record_damaged",
        f"the record of this job was damaged; the file{once} is kept as {printable(name)}",
        "check the disk; rename the file and move it back into the inbox to try again",
        retryable=True,
    )


def _retract(store: Store, job_id: str, new_name: str) -> str:
    """Remove the status file and the text that a job had under its lost name; returns that name, in words, if it is found."""
    once = ""
    for folders, file in filter(None, status_file.find_all(store.layout)):
        with contextlib.suppress(OSError), Folder(store.layout.outbox, folders) as outbox:
            document = status_file.decode(outbox.read(file))
            if document and document["id"] == job_id and document["name"] != new_name:
                once = f", once {document['name']},"
                os.unlink(file, dir_fd=outbox.fd)
                store.partials.remove(job_id, names.join(folders, file.removesuffix(names.STATUS_SUFFIX)))
    return once
