"""Reads requests to cancel: a file `X.cancel` in the inbox asks to cancel the upload or job X."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd.core.job import Signature
from whisperd.intake.scan import Found, remove
from whisperd.spool import names
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from whisperd.intake.writers import Leases

SUFFIX = ".cancel"
BYTES_MAX = 4096  # a request is removed once it is obeyed: a recording that was renamed must not be taken for one
LOOK_SECONDS = 0.5
REQUESTS_MAX = 10_000  # those beyond wait for a later scan
KEPT_SECONDS = 60.0  # a request for an unknown name is explained for this long, then removed
TOO_LARGE = f"its name asks to cancel something, but it has more than {BYTES_MAX} bytes; give it another name"


@dataclass(slots=True)
class CancelRequest:
    """One request: a file in the inbox that asks to cancel something."""

    name: str
    target: str  # the name of the upload
    since: float
    look_at: float


def target(name: str) -> str | None:
    """Return the name that a file asks to cancel; None if it is not a request."""
    wanted = name.removesuffix(SUFFIX)
    return wanted if wanted != name and names.split(wanted)[1] else None


class CancelRequests:
    """All requests that are in the inbox."""

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        self._known: dict[str, CancelRequest] = {}

    def sift(self, found: Found, now: float) -> Found | None:
        """Record what is found if it is a request; return anything else."""
        wanted = target(found.name)
        if wanted is None or found.signature is None:
            return found
        if found.signature.size > BYTES_MAX:
            return Found(found.name, None, TOO_LARGE)
        if len(self._known) < REQUESTS_MAX:
            self._known.setdefault(found.name, CancelRequest(found.name, wanted, now, now))
        return None

    def forget(self, name: str) -> None:
        """Forget a request whose file was removed."""
        self._known.pop(name, None)

    def close(self, request: CancelRequest) -> None:
        """Remove the file of a request that was obeyed, or never can be.

        Raises:
            OSError: it cannot be removed.
        """
        with contextlib.suppress(FileNotFoundError):
            remove(self._inbox, request.name)
        self.forget(request.name)

    def due(self, now: float) -> Iterator[CancelRequest]:
        """Yield the requests that are due; each becomes due again a little later until it is forgotten."""
        due = [request for request in self._known.values() if request.look_at <= now]
        for request in sorted(due, key=lambda request: request.look_at):
            request.look_at = now + LOOK_SECONDS
            yield request

    def next_at(self) -> float:
        """Return the time when the next request is due."""
        return min((request.look_at for request in self._known.values()), default=float("inf"))

    def reach(self, name: str, leases: Leases, *, is_quiet: bool) -> Signature | str | None:
        """Return the signature of an upload that can be cancelled, or the reason why it cannot be yet; None if there is none.

        It need not be complete, but nobody may be writing to it, since later writes would change an original in failed/.
        """
        folders, file = names.split(name)
        try:
            with Folder(self._inbox, folders) as folder:
                fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder.fd)
                try:
                    writer = leases.has_writer(folder, fd)
                    status = os.fstat(fd)
                finally:
                    os.close(fd)
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EPERM}:
                return "permission denied: whisperd cannot read what is to be cancelled"
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        if writer or (writer is None and not is_quiet):
            return "cancelled once nobody writes to it any more"
        return Signature.of(status)
