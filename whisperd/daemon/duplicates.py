"""The same content again: claimed jobs wait here until it is known whether their recording has been transcribed before.

Only an upload exactly as long as an earlier one is read at all. What is remembered of earlier jobs is in memory alone and
read anew from the sidecars at each start, so that no crash can make it lie. Reading is done in slices of the loop's time.
"""

from __future__ import annotations

import collections
import json
import os
from typing import TYPE_CHECKING

from whisperd.core.job import Signature
from whisperd.core.slices import Slice
from whisperd.intake.recheck import read_sha256
from whisperd.spool import completed
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.core.job import Job, Result
    from whisperd.spool.completed import CompletedJob
    from whisperd.spool.layout import Layout


class Duplicates:
    """Remembers what was transcribed, and compares new jobs with it; off until `configure` turns it on."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._is_on = False
        self._places: dict[bytes, str] = {}  # sha256 -> where the transcripts are
        self._sizes: set[int] = set()
        self._reading: Iterator[CompletedJob | None] | None = None
        self._held: collections.deque[Job] = collections.deque()
        self._hashing: Iterator[tuple[Job, str] | None] | None = None  # of the first one held

    def __len__(self) -> int:
        """How many jobs are held here."""
        return len(self._held)

    def configure(self, *, skip: bool) -> None:
        """Compare from now on, or no longer; what is held is let go by the next `tick`."""
        if skip and not self._is_on:
            self._reading = completed.find_all(self._layout)
        elif not skip:
            self._places.clear()
            self._sizes.clear()
            self._reading = self._hashing = None
        self._is_on = skip

    def hold(self, job: Job) -> bool:
        """Keep a job until it has been compared; False where there is nothing to compare it with."""
        if not self._is_on or (self._reading is None and job.signature.size not in self._sizes):
            return False
        self._held.append(job)
        return True

    def drop(self, job_id: str) -> None:
        """Forget a job that is held here; one that is not is fine."""
        if self._held and self._held[0].id == job_id:
            self._hashing = None
        self._held = collections.deque(job for job in self._held if job.id != job_id)

    def __iter__(self) -> Iterator[Job]:
        """The jobs that are held here."""
        return iter(tuple(self._held))

    def remember(self, job: Job, result: Result) -> None:
        """A job has been transcribed; who comes later can be compared with it."""
        if self._is_on and result.duplicate_of is None:
            self._places[bytes.fromhex(result.sha256)] = job.place
            self._sizes.add(job.signature.size)

    def tick(self, share: Slice | None = None) -> list[tuple[Job, Result | None]]:
        """Go on for a slice of time, or until one job is decided on: that, with a result where there is an earlier one.

        The signature of a job with a result is that of the file as it was read.
        """
        share = share or Slice()
        while self._held or self._reading is not None:
            if self._reading is not None:
                self._read_on(self._reading)
            elif not self._is_on or self._held[0].signature.size not in self._sizes:
                return [(self._held.popleft(), None)]
            elif (compared := self._compare_on()) is not None:
                return [compared]
            if share.is_used_up():
                break
        return []

    @property
    def is_busy(self) -> bool:
        """Whether `tick` has something to do at once."""
        return bool(self._held) or self._reading is not None

    def _read_on(self, reading: Iterator[CompletedJob | None]) -> None:
        try:
            earlier = next(reading)
            if earlier is not None:
                self._places.setdefault(bytes.fromhex(earlier.result.sha256), earlier.place)
                self._sizes.add(earlier.size_bytes)
        except (StopIteration, OSError):
            self._reading = None
        except ValueError:
            pass  # what stands in the place of a digest is none

    def _compare_on(self) -> tuple[Job, Result | None] | None:
        """Read a little more of the first one held; what was found once it is through."""
        job = self._held[0]
        self._hashing = self._hashing or _hash(self._layout, job)
        try:
            hashed = next(self._hashing)
            if hashed is None:
                return None
            job, sha256 = hashed
            result = self._earlier(job, sha256)
        except OSError:
            result = None  # the worker will say what is wrong with it
        self._hashing = None
        self._held.popleft()
        return job, result

    def _earlier(self, job: Job, sha256: str) -> Result | None:
        """The result of an earlier job with this content, if all that this one would write still stands there."""
        place = self._places.get(bytes.fromhex(sha256))
        earlier = completed.find(self._layout, place) if place is not None else None
        if earlier is None or earlier.result.sha256 != sha256 or not {*job.formats} <= {*earlier.result.outputs}:
            return None
        asked = job.spec.changes if job.spec else {}
        if json.loads(json.dumps(asked)) != earlier.options:  # as its sidecar has it: a translation is no transcript
            return None
        return earlier.result


def _hash(layout: Layout, job: Job) -> Iterator[tuple[Job, str] | None]:
    """Read a job's original, None for each step; then the job, with the signature of what was read, and its SHA-256.

    Raises:
        OSError: it cannot be read.
    """
    with Folder(layout.job_directory(job.id)) as own:
        fd = os.open(job.original, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=own.fd)
    try:
        signature = Signature.of(os.fstat(fd))
        for sha256 in read_sha256(fd, signature.size):
            yield None if sha256 is None else (job.evolve(signature=signature), sha256)
    finally:
        os.close(fd)
