"""The folders of one spool: where each is, how they are made, checked, locked and walked."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
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
DEPTH_MAX = 32  # folders in folders: each level costs an open for all below it, and a chain of thousands takes minutes


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below one root, all on one filesystem, so that every transition is one rename."""

    root: Path

    @property
    def inbox(self) -> Path:
        """Where people put recordings."""
        return self.root / "inbox"

    @property
    def outbox(self) -> Path:
        """Transcripts and status files."""
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
        """Private to the daemon: one directory for each claimed job."""
        return self.root / ".work"

    @property
    def staging(self) -> Path:
        """Where temporary files are made; emptied at start."""
        return self.work / STAGING

    def job_directory(self, job_id: str) -> Path:
        """The private directory of one claimed job."""
        return self.work / job_id

    def has(self, path: str) -> bool:
        """Whether anything is at a path relative to the root, found without following symlinks; a dangling one counts.

        Raises:
            OSError: a folder on the way cannot be read, or is none.
        """
        top, *folders, file = path.split("/")
        try:
            with Folder(self.root / top, folders) as folder:
                return folder.exists(file)
        except FileNotFoundError:
            return False

    def create(self) -> None:
        """Make the folders that are missing; a new root is closed to all but its owner and group.

        Raises:
            BootError: a folder cannot be made, the folders are not on one filesystem, or root would run the daemon of
                another user.
        """
        self._refuse_root()
        try:
            if not self.root.exists():
                make_directory(self.root)
                self.root.chmod(0o750)
            for folder in (self.inbox, self.outbox, self.done, self.failed, self.staging):
                make_directory(folder)
            self.work.chmod(0o700)
        except OSError as error:
            raise BootError(
                f"cannot create the spool in {self.root}: {error.strerror}",
                hint="give the user that runs whisperd write permission there, or set another root",
            ) from error
        self.check()

    def _refuse_root(self) -> None:
        """Raise if root runs the daemon of a spool that another user owns: that user could not use what root makes in it."""
        try:
            owner = self.work.stat().st_uid
        except OSError:  # there is none yet
            return
        if os.geteuid() == 0 != owner:
            try:
                name = pwd.getpwuid(owner).pw_name
            except KeyError:
                name = f"#{owner}"
            raise BootError(
                f"the spool in {self.root} belongs to the user {name}, who could not use what root makes in it",
                hint=f"systemctl start whisperd, or sudo -u {name} whisperd run",
            )

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
        """Own this root until the block ends; when the process dies, the kernel releases the lock.

        Raises:
            SpoolLocked: another process owns it.
        """
        fd = os.open(self.work / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
            except OSError as error:
                raise SpoolLocked(
                    f"another whisperd is running in {self.root}",
                    hint="stop it first, or give this one another root",
                ) from error
            with contextlib.suppress(OSError):  # the version is only shown: a full disk must not prevent the start
                os.truncate(fd, 0)
                os.pwrite(fd, whisperd.__version__.encode(), 0)
            yield
        finally:
            os.close(fd)

    def is_locked(self) -> bool:
        """Whether a daemon runs over this spool right now."""
        try:
            fd = os.open(self.work / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:  # only asks: holding the lock even for a moment could keep a daemon from starting
            answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_WRLCK))
        finally:
            os.close(fd)
        kind: int = struct.unpack_from("h", answer)[0]
        return kind != fcntl.F_UNLCK

    def owner_version(self) -> str | None:
        """The version of the daemon that runs here, or ran here last."""
        with contextlib.suppress(FileNotFoundError), Folder(self.work) as work:
            return work.read(LOCK, 100).decode("ascii", "replace").strip() or None
        return None

    def empty_staging(self) -> None:
        """Remove the temporary files of a killed daemon."""
        with Folder(self.staging) as staging:
            for entry in os.listdir(staging.fd):
                os.unlink(entry, dir_fd=staging.fd)


def _whole_file(kind: int) -> bytes:
    """`struct flock` of fcntl(2) for an open file description lock over all of a file."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)


def files(top: Path) -> Iterator[tuple[tuple[str, ...], str] | None]:
    """Walk a directory that its group may write to: the folders and the name of every file; None for each folder.

    os.walk() does not survive it: a chain of a thousand folders ends in a RecursionError.
    """
    unread: list[tuple[str, ...]] = [()]
    while unread:
        parts = unread.pop()
        yield None
        with contextlib.suppress(OSError), Folder(top, parts) as folder, os.scandir(folder.fd) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    yield parts, entry.name
                elif len(parts) < DEPTH_MAX:  # whisperd makes nothing deeper
                    unread.append((*parts, entry.name))
