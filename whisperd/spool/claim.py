"""Checks around the rename that claims an upload, and the repair of claims that an I/O error has interrupted.

The claim itself is `Store.claim`.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from whisperd.core.display import printable
from whisperd.core.errors import ClaimLost, ClaimRefused, SpoolFull
from whisperd.core.job import Signature
from whisperd.spool import job_directory, names
from whisperd.spool.durable import NOT_THERE, Folder, is_half_moved, is_reserved, remedy, remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.core.job import Failure, Job
    from whisperd.spool.layout import Layout


class InterruptedClaims:
    """The claims of which nobody knows whether the upload has been moved, because an I/O error interrupted them.

    Each is kept until that is known. Nothing else is claimed before: where a move is a link and an unlink, the same upload
    would be taken twice.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._jobs: collections.deque[Job] = collections.deque()

    def __contains__(self, job_id: str) -> bool:
        return any(job.id == job_id for job in self._jobs)

    @property
    def next_name(self) -> str:
        """The upload whose claim is repaired first."""
        return self._jobs[0].name

    def undo(self, job: Job) -> None:
        """Undo a claim that failed: remove its directory, or keep the claim if an upload is in there, or may be."""
        try:
            with Folder(self._layout.job_directory(job.id)) as own:
                is_empty = not own.exists(job.original) or is_reserved(own, job.original)
        except FileNotFoundError:
            return
        except OSError:
            is_empty = False
        if is_empty:
            with contextlib.suppress(OSError), Folder(self._layout.work) as work:
                remove_tree(work, job.id)
        else:
            self._jobs.append(job)

    def repair(self) -> tuple[Job, bool, Failure | None] | None:
        """Complete or undo the next claim; returns it, whether it was completed, and the failure that it was made for.

        Returns:
            None when there is no other.

        Raises:
            OSError: it is still not known what became of it.
        """
        if not self._jobs:
            return None
        job = self._jobs[0]
        with Folder(self._layout.work) as work:
            is_made, failure = False, None
            with contextlib.suppress(FileNotFoundError), Folder(self._layout.work, (job.id,)) as own:
                is_made = own.exists(job.original) and not is_reserved(own, job.original)
                if is_made:
                    complete(self._layout, own, job)
                    failure = job_directory.load_failure(own)
                    is_made = failure is not None or is_what_settled(own, job) or not self._returned(own, job)
            if not is_made:
                remove_tree(work, job.id)
        self._jobs.popleft()
        return job, is_made, failure

    def _returned(self, own: Folder, job: Job) -> bool:
        folders, file = names.split(job.name)
        with contextlib.suppress(OSError), Folder(self._layout.inbox, folders, create=True) as inbox:
            job_directory.return_to(own, job, inbox, file)
            return True
        return False


def is_what_settled(own: Folder, job: Job) -> bool:
    """Whether the original is the file that had settled, which an interrupted claim has not checked.

    An inode number counts only on the same device: the next mount may number both anew.

    Raises:
        OSError: it cannot be read.
    """
    status, seen = os.stat(job.original, dir_fd=own.fd, follow_symlinks=False), job.signature
    is_same_inode = status.st_dev != seen.device or seen.inode in {0, status.st_ino}
    is_unchanged = (status.st_size, status.st_mtime_ns) == (seen.size, seen.mtime_ns)
    return stat.S_ISREG(status.st_mode) and is_same_inode and is_unchanged


def complete(layout: Layout, own: Folder, job: Job) -> None:
    """Complete an interrupted claim: the ticket follows its upload, and a second name of the upload is removed.

    It has one if the rename was a link and an unlink (see `durable.move`).

    Raises:
        OSError: it cannot be read, or not be removed.
    """
    folders, file = names.split(job.name)
    try:
        with Folder(layout.inbox, folders) as inbox:
            job_directory.take_ticket(job, inbox, file, own)
            if is_half_moved(own, job.original, inbox, file):
                os.unlink(file, dir_fd=inbox.fd)
                inbox.sync()
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise


@contextlib.contextmanager
def work_or_full(layout: Layout) -> Iterator[Folder]:
    """Open `.work` for what must be possible there, whatever the upload.

    Raises:
        SpoolFull: it is missing, or may not be written.
    """
    try:
        with Folder(layout.work) as work:
            yield work
    except (FileNotFoundError, PermissionError) as error:
        hint = "put it back, or give it back to the user that runs whisperd; a restart makes a new one"
        raise SpoolFull(f"cannot claim anything: {layout.work}: {error.strerror}", hint=hint) from error


def expect(inbox: Folder, file: str, seen: Signature) -> None:
    """Check that an upload is still the file that had settled, and not a symlink, a FIFO or another file in its place.

    Raises:
        ClaimLost: it is another file.
        OSError: it cannot be opened.
    """
    fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=inbox.fd)
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    if not stat.S_ISREG(status.st_mode) or Signature.of(status) != seen:
        raise ClaimLost(f"{printable(file)} changed before it was taken")


def refusal(error: OSError, name: str) -> ClaimLost | ClaimRefused | SpoolFull:
    """The error that a claim raises in place of an I/O error."""
    shown = printable(name)
    if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO}:
        return ClaimLost(f"{shown} went away before it was taken")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return ClaimRefused(
            f"permission denied: {shown}",
            hint="whisperd must be able to read the file (g+r) and to rename it out of its folder (g+wx)",
        )
    if error.errno == errno.EXDEV:
        return ClaimRefused(f"{shown} is on another filesystem", hint="mount the whole spool as one filesystem")
    # EMFILE, EIO and so on: the upload is safe where it is, and one error must not end the daemon
    return SpoolFull(f"cannot claim {shown}: {error.strerror}", hint=remedy(error))
