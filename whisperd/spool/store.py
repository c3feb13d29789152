"""The four transitions of a job, each one rename, each safe to cut off anywhere and to repeat.

Publishing follows one order, the commit protocol: result recorded in `.work` -> outputs renamed into the outbox -> sidecar
`completed` -> notices written down -> original renamed into done/ -> `.work/<job>` removed. Every prefix of it is recoverable.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from whisperd.core.display import printable
from whisperd.core.errors import ClaimLost
from whisperd.core.job import Failure, Job, Progress, Result, Signature, utc_now
from whisperd.spool import names, notes, pair, records, sidecar, transcripts
from whisperd.spool.claims import Halves, expect, reason, work_or_full
from whisperd.spool.durable import Folder, failpoint, move, remove_tree
from whisperd.spool.partial import Partials, outputs
from whisperd.spool.places import Places
from whisperd.spool.sidecars import Sidecars

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.core.job import Ticket
    from whisperd.core.options import JobSpec
    from whisperd.spool.layout import Layout

# Told of an end before the original leaves `.work`: gets the job, its final sidecar and the outcome; may raise OSError.
Announce = Callable[[Job, dict[str, Any], Result | Failure], None]
IN_THE_WAY = (FileExistsError, NotADirectoryError)  # somebody put something there since the place was chosen


class Store:
    """All jobs of one spool. One thread, one process: the lock of the layout sees to that."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.places = Places(layout)
        self.partials = Partials(layout)
        self.announce: Announce = lambda *_: None
        self._sidecars = Sidecars(layout, self.places)
        self._halves = Halves(layout)

    def claim(
        self,
        name: str,
        seen: Signature,
        formats: tuple[str, ...],
        *,
        created_at: str,
        spec: JobSpec | None = None,
        ticket: Ticket | None = None,
        failure: Failure | None = None,
    ) -> Job:
        """Take one settled upload out of the inbox.

        Args:
            name: path relative to the inbox.
            seen: what the file was when it settled; anything else there now is not taken.
            formats: the transcripts that will be written, so that their names can be held.
            created_at: when the upload was first seen.
            spec: what is to be done with it, on record from now on.
            ticket: its own, which goes along.
            failure: why it fails at once, on record before it moves: `fail` is to follow, after a crash too.

        Raises:
            ClaimLost: it changed or went away; let it settle again.
            ClaimRefused: it cannot be taken until somebody acts.
            SpoolFull: no room for even the job's record.
        """
        folders, file = names.split(name)
        now = utc_now()
        job_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"
        try:
            with Folder(self.layout.inbox, folders) as inbox:
                expect(inbox, file, seen)
                suffix = ticket.suffix if ticket else ""
                place = self.places.choose(job_id, name, outputs(formats, spec), suffix)
                original = names.original(file)
                job = Job(job_id, name, place, original, seen, created_at, now, formats=formats)
                job = job.evolve(spec=spec, ticket=suffix, ticket_signature=ticket.signature if ticket else None)
                with work_or_full(self.layout) as work:
                    os.mkdir(job_id, 0o700, dir_fd=work.fd)
                try:
                    with Folder(self.layout.work) as work:
                        work.sync()
                    failpoint("claim.after_directory")
                    with Folder(self.layout.job_directory(job_id)) as own:
                        records.save(own, records.JOB, job)
                        if failure:
                            records.save(own, records.FAILURE, failure)
                        failpoint("claim.after_record")
                        move(inbox, file, own, original)
                        failpoint("claim.after_move")
                        self._keep_or_return(own, job, inbox, file)
                        pair.take(job, inbox, file, own)
                        failpoint("claim.after_ticket")
                except BaseException:
                    self._halves.abandon(job)
                    raise
        except BaseException as error:
            if job_id not in self._halves:
                self.places.drop(job_id)
            if isinstance(error, OSError):
                raise reason(error, name) from error
            raise
        return job

    def _keep_or_return(self, own: Folder, job: Job, inbox: Folder, file: str) -> None:
        """Make sure that what was moved is what had settled: somebody may have swapped it in between."""
        moved = os.stat(job.original, dir_fd=own.fd, follow_symlinks=False)
        if stat.S_ISREG(moved.st_mode) and Signature.of(moved).same_content(job.signature):
            return
        pair.give_back(own, job, inbox, file)
        raise ClaimLost(f"{printable(file)} changed while it was taken")

    def settle_claims(self) -> list[tuple[Job, Failure | None]]:
        """Bring the claims to their end that an I/O error cut off in the middle; the jobs that came of it.

        Each with the failure that it was claimed for, if any.

        Raises:
            SpoolFull: it still cannot be told what became of one; nothing else can be claimed.
        """
        jobs = []
        try:
            while settled := self._halves.settle():
                job, is_made, failure = settled
                if is_made:
                    jobs.append((job, failure))
                else:
                    self.places.drop(job.id)
        except OSError as error:
            if not jobs:
                raise reason(error, self._halves.next_name) from error
        return jobs

    def start(self, job: Job) -> Job:
        """Count an attempt, durably, before a worker sees the job: a file that kills worker and daemon still counts."""
        with Folder(self.layout.job_directory(job.id)) as own:
            # what the worker will read: the rename has changed ctime, and a writer may have been at work since
            now = Signature.of(os.stat(job.original, dir_fd=own.fd, follow_symlinks=False))
        started_at = job.started_at or utc_now()
        return self.record(job.evolve(attempts=job.attempts + 1, started_at=started_at, suspect=True, signature=now))

    def record(self, job: Job) -> Job:
        """Write down what the job is now."""
        with Folder(self.layout.job_directory(job.id)) as own:
            records.save(own, records.JOB, job)
        return job

    def finish(self, job: Job, result: Result) -> Job:
        """Publish the transcripts and move the original to done/; may be repeated from any point it was cut off at.

        Raises:
            OSError: the disk is full, a folder is not writable, ...: nothing is lost, call it again.
        """
        with Folder(self.layout.job_directory(job.id)) as own:
            records.save(own, records.RESULT, result)
            failpoint("publish.after_result")
            while True:
                try:
                    transcripts.publish(self.layout, job, result)
                    self.partials.hide(job)
                    document = self.show(job, result=result, sync=True)
                    failpoint("publish.after_sidecar")
                    self.announce(job, document, result)
                    failpoint("publish.after_notice")
                    self._retire(own, job, "done")
                    break
                except IN_THE_WAY as error:
                    self._sidecars.hide(job)  # first: one that says completed must not outlive what it promises
                    transcripts.retract(self.layout, job, result)
                    job = self._choose_again(own, job, error)
        failpoint("publish.after_original")
        self._clear(job)
        return job

    def condemn(self, job: Job, failure: Failure) -> None:
        """Decide that a job fails, durably; `fail` follows when its worker has let go of it, or after a restart."""
        with Folder(self.layout.job_directory(job.id)) as own:
            records.save(own, records.FAILURE, failure)

    def fail(self, job: Job, failure: Failure) -> Job:
        """Say why in the sidecar and move the original to failed/; may be repeated from any point it was cut off at."""
        with Folder(self.layout.job_directory(job.id)) as own:
            records.save(own, records.FAILURE, failure)
            failpoint("fail.after_record")
            while True:
                try:
                    self.partials.hide(job)
                    document = self.show(job, failure=failure, sync=True)
                    failpoint("fail.after_sidecar")
                    self.announce(job, document, failure)
                    failpoint("fail.after_notice")
                    self._retire(own, job, "failed")
                    break
                except IN_THE_WAY as error:
                    self._sidecars.hide(job)
                    job = self._choose_again(own, job, error)
        failpoint("fail.after_original")
        self._clear(job)
        return job

    def give_back(self, job: Job) -> str:
        """Put the original back into the inbox, where it settles again, and forget the job; returns its name there."""
        self.partials.hide(job)
        self._sidecars.hide(job)
        folders, file = names.split(job.name)
        with (
            Folder(self.layout.job_directory(job.id)) as own,
            Folder(self.layout.inbox, folders, create=True) as inbox,
        ):
            name = pair.give_back(own, job, inbox, file)
        failpoint("give_back.after_original")
        self._clear(job)
        return names.join(folders, name)

    def forget(self, job: Job) -> None:
        """Remove what is left of a job that is gone."""
        with contextlib.suppress(OSError):
            self._sidecars.hide(job)
            self.partials.hide(job)
        self._clear(job)

    def _choose_again(self, own: Folder, job: Job, error: OSError) -> Job:
        self.partials.hide(job)
        place = self.places.choose(job.id, job.name, outputs(job.formats, job.spec), job.ticket)
        if place == job.place:
            raise error  # what is in the way cannot be seen from here: again later, and not in a circle
        job = job.evolve(place=place)
        records.save(own, records.JOB, job)
        return job

    def _retire(self, own: Folder, job: Job, room: str) -> None:
        folders, file = names.split(job.place)
        with Folder(self.layout.root / room, folders, create=True) as target:
            pair.retire(own, job, target, file)

    def _clear(self, job: Job) -> None:
        self.places.drop(job.id)
        # the end is reached: what cannot be removed now goes at the next start
        with contextlib.suppress(OSError), Folder(self.layout.work) as work:
            remove_tree(work, job.id)

    def show(
        self,
        job: Job,
        *,
        progress: Progress | None = None,
        result: Result | None = None,
        failure: Failure | None = None,
        reason: str | None = None,
        sync: bool = False,
    ) -> dict[str, Any]:
        """Write the job's sidecar; returns what it says.

        Raises:
            FileExistsError: another job's sidecar, or something that is none, stands under that name.
        """
        document = sidecar.of_job(job, now=utc_now(), progress=progress, result=result, failure=failure, reason=reason)
        self._sidecars.write(job.place, document, sync=sync)
        return document

    def explain(self, name: str, size_bytes: int | None, reason: str) -> str | None:
        """Write the note on a file that stays in the inbox: a sidecar without an id, until a job's takes its place.

        Where the sidecar of an earlier upload of this name stands it gets a number, as the job's own will.

        Returns:
            Where it is, for `unexplain`; None if there is no room for one.
        """
        document = sidecar.pending_upload(name, size_bytes, reason, now=utc_now())
        folders, file = names.split(name)
        for number in range(1, notes.NOTES_MAX + 1):
            place = names.join(folders, names.numbered(file, number))
            with contextlib.suppress(FileExistsError):
                self._sidecars.write(place, document, sync=False)
                return place
        return None

    def unexplain(self, place: str) -> None:
        """Remove the note on a file that is no longer waiting in the inbox, if it is still that."""
        with contextlib.suppress(OSError):
            self._sidecars.remove(place, None)

    def note_on(self, name: str) -> str | None:
        """Where the note on a file of the inbox stands, whoever wrote it."""
        return notes.find(self.layout, name)

    def stale_notes(self) -> Iterator[str | None]:
        """Where notes stand on files that are not in the inbox any more, one step for each sidecar that is read."""
        return notes.stale(self.layout)
