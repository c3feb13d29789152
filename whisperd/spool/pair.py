"""An original and its own ticket, which go together from room to room.

Into a job's directory the original goes first, out of it last: a directory without an original is removed.
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


def take(job: Job, inbox: Folder, file: str, own: Folder) -> None:
    """Let a ticket follow its upload into the job's directory; one that was changed since it was read stays where it is.

    It has been read, so that nothing depends on it any more: where it cannot be moved it is left. May be repeated.
    """
    if not job.ticket:
        return
    name = _in_any_case(inbox, file, job.ticket)
    with contextlib.suppress(OSError):
        if own.exists(TICKET):
            if is_half_moved(own, TICKET, inbox, name):
                os.unlink(name, dir_fd=inbox.fd)
                inbox.sync()
        elif Signature.of(os.stat(name, dir_fd=inbox.fd, follow_symlinks=False)) == job.ticket_signature:
            move(inbox, name, own, TICKET)


def _in_any_case(inbox: Folder, file: str, suffix: str) -> str:
    """The name of a ticket in the inbox: that of its upload and the suffix, in the same case or in another."""
    usual = file + suffix
    if inbox.exists(usual):
        return usual
    return next((name for name in os.listdir(inbox.fd) if name.casefold() == usual.casefold()), usual)


def retire(own: Folder, job: Job, target: Folder, file: str) -> None:
    """Move ticket and original to where the job ends; may be repeated from any point it was cut off at.

    Raises:
        FileExistsError: a name is taken; both are where they were.
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


def give_back(own: Folder, job: Job, inbox: Folder, file: str) -> str:
    """Move both back to the first name in the inbox that is free for both, like `file`, `file-2`; returns that."""
    if not own.exists(job.original):
        return file
    has_ticket = bool(job.ticket) and own.exists(TICKET)
    refused: set[str] = set()  # by the move, which sees what a look may miss

    def is_taken(number: int) -> bool:
        name = names.numbered(file, number)
        if name in refused or (has_ticket and inbox.exists(names.ticket(name, job.ticket))):
            return True
        # a name that an earlier try has reserved, or given by a link, before it was cut off, is still the right one
        return inbox.exists(name) and not (is_reserved(inbox, name) or is_half_moved(own, job.original, inbox, name))

    while True:
        name = names.numbered(file, names.first_free(is_taken))
        try:
            retire(own, job, inbox, name)
        except FileExistsError:
            refused.add(name)
            continue
        except OSError:
            if own.exists(job.original):
                raise  # else it is there, only perhaps not for good after a power cut
        return name
