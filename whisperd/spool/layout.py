"""The tree of one spool: where everything stands, and whose it is."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import whisperd
from whisperd.core.errors import BootError, SpoolLocked
from whisperd.spool.durable import Folder, make_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = ".lock"
STAGING = ".staging"


@dataclass(frozen=True, slots=True)
class Layout:
    """One root directory; all of it on one filesystem, so that every transition is one rename."""

    root: Path

    @property
    def inbox(self) -> Path:
        """People write here."""
        return self.root / "inbox"

    @property
    def outbox(self) -> Path:
        """Transcripts and sidecars."""
        return self.root / "outbox"

    @property
    def done(self) -> Path:
        """Originals of completed jobs."""
        return self.root / "done"

    @property
    def failed(self) -> Path:
        """Originals of failed jobs."""
        return self.root / "failed"

    @property
    def work(self) -> Path:
        """Private: one directory per claimed job."""
        return self.root / ".work"

    @property
    def staging(self) -> Path:
        """Where temporary files are made; emptied at start."""
        return self.work / STAGING

    def job_directory(self, job_id: str) -> Path:
        """The private directory of one claimed job."""
        return self.work / job_id

    def create(self) -> None:
        """Make what is missing.

        Raises:
            BootError: a folder cannot be made, or the folders are not on one filesystem.
        """
        try:
            for folder in (self.inbox, self.outbox, self.done, self.failed, self.staging):
                make_directory(folder)
            self.work.chmod(0o700)
        except OSError as error:
            raise BootError(
                f"cannot create the spool in {self.root}: {error.strerror}",
                hint="give the user that runs whisperd write permission there, or set another root",
            ) from error
        self.check()

    def check(self) -> None:
        """Prove that a file can be renamed from each folder to the next.

        Equal `st_dev` is not enough: two bind mounts of one disk refuse rename(2) between them, and systemd makes one
        bind mount of each `ReadWritePaths=` entry.

        Raises:
            BootError: it cannot, and why.
        """
        folders = (self.inbox, self.work, self.outbox, self.done, self.failed)
        probe = f".whisperd-probe-{os.getpid()}"
        at = self.work
        try:
            (at / probe).touch()
            for folder in folders:
                (at / probe).rename(folder / probe)  # the probe's name is ours alone: nothing to overwrite
                at = folder
        except OSError as error:
            hint = "whisperd must be able to write, and to rename files, in all of its folders"
            if error.errno == errno.EXDEV:
                hint = "put inbox, outbox, done, failed and .work on one mount; under systemd list the root once in ReadWritePaths="
            raise BootError(
                f"the spool in {self.root} cannot be used: {error.strerror} ({error.filename2 or error.filename})",
                hint=hint,
            ) from error
        finally:
            (at / probe).unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """Room left for this process on the filesystem of the root."""
        return shutil.disk_usage(self.root).free

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Own this root until the block ends; the kernel lets go when the process dies, however it dies.

        Raises:
            SpoolLocked: another process owns it.
        """
        fd = os.open(self.work / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
            except OSError as error:
                raise SpoolLocked(
                    f"another whisperd is at work in {self.root}",
                    hint="stop it first, or give this one another root",
                ) from error
            with contextlib.suppress(OSError):  # for those who ask; a full disk is no reason not to start
                os.truncate(fd, 0)
                os.pwrite(fd, whisperd.__version__.encode(), 0)
            yield
        finally:
            os.close(fd)

    def is_locked(self) -> bool:
        """Whether a daemon is at work here right now."""
        try:
            fd = os.open(self.work / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:  # asked, not tried: holding it even for a moment could keep a daemon from starting
            answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_WRLCK))
        finally:
            os.close(fd)
        kind: int = struct.unpack_from("h", answer)[0]
        return kind != fcntl.F_UNLCK

    def owner_version(self) -> str | None:
        """Which whisperd is at work here, or was last."""
        with contextlib.suppress(FileNotFoundError), Folder(self.work) as work:
            return work.read(LOCK, 100).decode("ascii", "replace").strip() or None
        return None

    def empty_staging(self) -> None:
        """Remove what a killed daemon left half-written."""
        with Folder(self.staging) as staging:
            for entry in os.listdir(staging.fd):
                os.unlink(entry, dir_fd=staging.fd)


def _whole_file(kind: int) -> bytes:
    """`struct flock` of fcntl(2) for an open file description lock over all of a file."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)
