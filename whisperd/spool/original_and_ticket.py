"""Moves an original and the ticket that belongs to it, from the inbox into a job's directory and out of it.

The original goes into the directory first and leaves it last: a directory without an original is removed at the next start.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from whisperd.core.job import Signature
from whisperd.spool import names
from whisperd.spool.durable import is_half_moved, is_reserved, move

if TYPE_CHECKING:
    from whisperd.core.job import Job
    from whisperd.spool.durable import Folder

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


def _in_any_case(inbox: Folder, file: str, suffix: str) -> str:
    """Find the name of an upload's ticket in the inbox, whose case may differ from that of the upload."""
    usual = file + suffix
    if inbox.exists(usual):
        return usual
    return next((name for name in os.listdir(inbox.fd) if name.casefold() == usual.casefold()), usual)


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
