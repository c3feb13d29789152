"""Compares new jobs with completed ones, so that the same content is not transcribed again.

Only an upload exactly as long as an earlier one is read at all. What is remembered of earlier jobs is in memory alone and
read anew from the status files at each start, so that no crash can make it lie. Reading is done in slices of the loop's time.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from whisperd.core.job import Signature
from whisperd.intake.complete import read_sha256
from whisperd.spool import status_file
from whisperd.spool.durable import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.core.job import Job, Result
    from whisperd.core.slices import Slice
    from whisperd.spool.layout import Layout
    from whisperd.spool.status_file import CompletedJob


class Duplicates:
    """Remembers the content of completed jobs, and compares new jobs with it; off until `configure` turns it on."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._is_on = False
        self._places: dict[bytes, str] = {}  # sha256 -> where the transcripts are
        self._sizes: set[int] = set()
        self._reading: Iterator[CompletedJob | None] | None = None
        self._hashing: tuple[str, Iterator[tuple[Job, str] | None]] | None = None  # of the job that is being compared

    def configure(self, *, skip: bool) -> None:
        """Turn comparing on or off; if it is off, `compare` releases the jobs that wait."""
        if skip and not self._is_on:
            self._reading = status_file.find_all_completed(self._layout)
        elif not skip:
            self._places.clear()
            self._sizes.clear()
            self._reading = self._hashing = None
        self._is_on = skip

    def is_candidate(self, job: Job) -> bool:
        """Whether a job must be compared; False if there is nothing to compare it with."""
        return self._is_on and (self._reading is not None or job.signature.size in self._sizes)

    def remember(self, job: Job, result: Result) -> None:
        """Remember a completed job, so that later ones can be compared with it."""
        if self._is_on and result.duplicate_of is None:
            self._places[bytes.fromhex(result.sha256)] = job.place
            self._sizes.add(job.signature.size)

    @property
    def is_reading(self) -> bool:
        """Whether the status files of earlier jobs are not read completely, which comparing needs."""
        return self._reading is not None

    def read_on(self, share: Slice) -> None:
        """Read status files of earlier jobs for a slice of time."""
        while self._reading is not None:
            self._read_on(self._reading)
            if share.is_used_up():
                return

    def compare(self, job: Job, share: Slice) -> tuple[Job, Result | None] | None:
        """Compare for a slice of time; returns the job, with a result if the content is known; None if it takes longer.

        The signature of a job with a result is that of the file as it was read. Another job than last time begins anew.
        """
        self.read_on(share)
        if self.is_reading:
            return None
        if not self.is_candidate(job):
            return job, None
        if self._hashing is None or self._hashing[0] != job.id:
            self._hashing = job.id, _hash(self._layout, job)
        while (compared := self._compare_on(job, self._hashing[1])) is None:
            if share.is_used_up():
                return None
        self._hashing = None
        return compared

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

    def _compare_on(self, job: Job, hashing: Iterator[tuple[Job, str] | None]) -> tuple[Job, Result | None] | None:
        """Read more of a job's original; returns the result of the comparison when it is complete."""
        try:
            if (hashed := next(hashing)) is None:
                return None
            job, sha256 = hashed
            return job, self._completed_before(job, sha256)
        except OSError:
            return job, None  # the worker will say what is wrong with it

    def _completed_before(self, job: Job, sha256: str) -> Result | None:
        """Find the result of an earlier job with this content, if its transcripts exist in all formats of this job."""
        place = self._places.get(bytes.fromhex(sha256))
        earlier = status_file.find_completed(self._layout, place) if place is not None else None
        if earlier is None or earlier.result.sha256 != sha256 or not {*job.formats} <= {*earlier.result.outputs}:
            return None
        asked = job.spec.changes if job.spec else {}
        if (
            json.loads(json.dumps(asked)) != earlier.options
        ):  # as its status file has it: a translation is no transcript
            return None
        return earlier.result


def _hash(layout: Layout, job: Job) -> Iterator[tuple[Job, str] | None]:
    """Hash the original of a job: yields None for each step, then the job with the signature that was read and the SHA-256.

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
