"""The four transitions of a job: claim, release, finish and fail. Each is one rename, and may be interrupted and repeated.

The state of a job is where its original is: in inbox, `.work`, done or failed. Everything else explains that state, or
helps to repeat a transition that was interrupted.
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
from whisperd.spool import job_directory, names, publish, status_file
from whisperd.spool.claim import InterruptedClaims, expect, refusal, work_or_full
from whisperd.spool.durable import Folder, failpoint, move, remove_tree
from whisperd.spool.layout import LOCK

if TYPE_CHECKING:
    from pathlib import Path

    from whisperd.core.job import Ticket
    from whisperd.core.options import JobSpec
    from whisperd.spool.layout import Layout

# The step of publishing that makes notifications durable before the original leaves: it gets the job, its final status file and
# the outcome, and may raise OSError.
Announce = Callable[[Job, dict[str, Any], Result | Failure], None]
IN_THE_WAY = (FileExistsError, NotADirectoryError)  # somebody has taken one of the names since the place was chosen


class Store:
    """The jobs of one spool. It is used by one thread of one process; the lock of the layout ensures that.

    Attributes:
        layout: the spool.
        naming: which names belong to which job.
        status_files: what users read about uploads and jobs.
        partials: the texts of running jobs so far.

    Args:
        layout: the spool.
        announce: the step of the commit protocol that records notifications.
    """

    def __init__(self, layout: Layout, announce: Announce) -> None:
        self.layout = layout
        self.status_files = status_file.StatusFiles(layout)
        self.naming = names.Naming(layout, self.status_files.is_superseded)
        self.partials = publish.PartialTexts(layout)
        self._announce = announce
        self._interrupted = InterruptedClaims(layout)

    # --- claim: inbox -> .work ---

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
        """Take a settled upload out of the inbox.

        Args:
            name: path relative to the inbox.
            seen: what the file was when it settled; another file under that name is not taken.
            formats: the transcripts that will be written, so that their names can be held.
            created_at: when the upload was first seen.
            spec: what is to be done with it, recorded from now on.
            ticket: the ticket of this upload alone, which moves with it.
            failure: why it fails at once; recorded before the upload moves, so that it fails after a crash too. The caller
                calls `fail`.

        Raises:
            ClaimLost: it changed or went away; let it settle again.
            ClaimRefused: it cannot be taken until somebody acts.
            SpoolFull: there is no room for even the job's record.
        """
        folders, file = names.split(name)
        now = utc_now()
        job_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"
        try:
            with Folder(self.layout.inbox, folders) as inbox:
                expect(inbox, file, seen)
                suffix = ticket.suffix if ticket else ""
                place = self.naming.choose(job_id, name, publish.kinds_of(formats, spec), suffix)
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
                        job_directory.save(own, job_directory.JOB, job)
                        if failure:
                            job_directory.save(own, job_directory.FAILURE, failure)
                        failpoint("claim.after_record")
                        move(inbox, file, own, original)
                        failpoint("claim.after_move")
                        self._keep_or_return(own, job, inbox, file)
                        job_directory.take_ticket(job, inbox, file, own)
                        failpoint("claim.after_ticket")
                except BaseException:
                    self._interrupted.undo(job)
                    raise
        except BaseException as error:
            if job_id not in self._interrupted:
                self.naming.drop(job_id)
            if isinstance(error, OSError):
                raise refusal(error, name) from error
            raise
        return job

    def _keep_or_return(self, own: Folder, job: Job, inbox: Folder, file: str) -> None:
        """Check that the file that was moved is the one that had settled: somebody may have swapped it in between."""
        moved = os.stat(job.original, dir_fd=own.fd, follow_symlinks=False)
        if stat.S_ISREG(moved.st_mode) and Signature.of(moved).same_content(job.signature):
            return
        job_directory.return_to(own, job, inbox, file)
        raise ClaimLost(f"{printable(file)} changed while it was taken")

    def repair_claims(self) -> list[tuple[Job, Failure | None]]:
        """Complete or undo the claims that an I/O error has interrupted.

        Returns:
            The jobs that came of them, each with the failure that it was claimed for, if any.

        Raises:
            SpoolFull: it is still not known what became of one; nothing else can be claimed.
        """
        jobs = []
        try:
            while repaired := self._interrupted.repair():
                job, is_made, failure = repaired
                if is_made:
                    jobs.append((job, failure))
                else:
                    self.naming.drop(job.id)
        except OSError as error:
            if not jobs:
                raise refusal(error, self._interrupted.next_name) from error
        return jobs

    # --- while a job is in .work ---

    def start(self, job: Job) -> Job:
        """Count an attempt, durably, before a worker gets the job: a file that kills worker and daemon counts too."""
        with Folder(self.layout.job_directory(job.id)) as own:
            # what the worker will read: the rename has changed ctime, and somebody may have written to the file since
            now = Signature.of(os.stat(job.original, dir_fd=own.fd, follow_symlinks=False))
        started_at = job.started_at or utc_now()
        return self.record(job.evolve(attempts=job.attempts + 1, started_at=started_at, suspect=True, signature=now))

    def record(self, job: Job) -> Job:
        """Record the job as it is now, durably."""
        with Folder(self.layout.job_directory(job.id)) as own:
            job_directory.save(own, job_directory.JOB, job)
        return job

    def condemn(self, job: Job, failure: Failure) -> None:
        """Record that a job fails, durably; `fail` follows when its worker has released it, or after a restart."""
        with Folder(self.layout.job_directory(job.id)) as own:
            job_directory.save(own, job_directory.FAILURE, failure)

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
        """Write the status file of a job; returns its content.

        Raises:
            FileExistsError: another job's status file, or something else, has that name.
        """
        document = status_file.of_job(
            job, now=utc_now(), progress=progress, result=result, failure=failure, reason=reason
        )
        self.status_files.write(job.place, document, sync=sync)
        return document

    # --- release: .work -> inbox ---

    def release(self, job: Job) -> str:
        """Return the original to the inbox, where it settles again, and forget the job; returns its name there."""
        self.partials.hide(job)
        self.status_files.hide(job)
        folders, file = names.split(job.name)
        with (
            Folder(self.layout.job_directory(job.id)) as own,
            Folder(self.layout.inbox, folders, create=True) as inbox,
        ):
            name = job_directory.return_to(own, job, inbox, file)
        failpoint("release.after_original")
        self._remove_directory(job)
        return names.join(folders, name)

    # --- finish: .work -> done, fail: .work -> failed ---

    def finish(self, job: Job, result: Result) -> Job:
        """Publish the transcripts and move the original to done/.

        The order of the steps is the commit protocol. After an interruption at any point, calling this again brings the
        job to the same end; a restart does that, because the result is on record.

        Raises:
            OSError: the disk is full, a folder is not writable, ...: nothing is lost, call it again.
        """
        with Folder(self.layout.job_directory(job.id)) as own:
            # 1. The result is on record: from now on a restart publishes it and transcribes nothing again.
            job_directory.save(own, job_directory.RESULT, result)
            failpoint("publish.after_result")
            while True:
                try:
                    # 2. The transcripts are in the outbox, and what they hold is on record.
                    result = self._linked(own, job, result)
                    publish.publish(self.layout, job, result)
                    self.partials.hide(job)
                    # 3. The status file says `completed`, which is true: all that it names is there.
                    document = self.show(job, result=result, sync=True)
                    failpoint("publish.after_status_file")
                    # 4. The notifications are on record.
                    self._announce(job, document, result)
                    failpoint("publish.after_notification")
                    # 5. The original is in done/: the job has ended.
                    self._move_original(own, job, self.layout.done)
                    break
                except IN_THE_WAY as error:
                    # first the status file: one that says `completed` must not outlive what it names
                    self.status_files.hide(job)
                    publish.retract(self.layout, job, result)
                    job = self._choose_again(own, job, error)
        failpoint("publish.after_original")
        # 6. The job's directory is removed.
        self._remove_directory(job)
        return job

    def _linked(self, own: Folder, job: Job, result: Result) -> Result:
        linked = publish.linked(self.layout, job, result)
        if linked != result:
            job_directory.save(own, job_directory.RESULT, linked)
        return linked

    def fail(self, job: Job, failure: Failure) -> Job:
        """Explain the failure in the status file and move the original to failed/.

        The steps are those of `finish`, without transcripts.

        Raises:
            OSError: the disk is full, a folder is not writable, ...: nothing is lost, call it again.
        """
        with Folder(self.layout.job_directory(job.id)) as own:
            job_directory.save(own, job_directory.FAILURE, failure)
            failpoint("fail.after_record")
            while True:
                try:
                    self.partials.hide(job)
                    document = self.show(job, failure=failure, sync=True)
                    failpoint("fail.after_status_file")
                    self._announce(job, document, failure)
                    failpoint("fail.after_notification")
                    self._move_original(own, job, self.layout.failed)
                    break
                except IN_THE_WAY as error:
                    self.status_files.hide(job)
                    job = self._choose_again(own, job, error)
        failpoint("fail.after_original")
        self._remove_directory(job)
        return job

    def _choose_again(self, own: Folder, job: Job, error: OSError) -> Job:
        self.partials.hide(job)
        kinds = publish.kinds_of(job.formats, job.spec)
        place = self.naming.choose(job.id, job.name, kinds, job.ticket)
        if place == job.place:
            raise error  # what is in the way cannot be seen from here: try again later, and not in a circle
        job = job.evolve(place=place)
        job_directory.save(own, job_directory.JOB, job)
        return job

    def _move_original(self, own: Folder, job: Job, to: Path) -> None:
        folders, file = names.split(job.place)
        with Folder(to, folders, create=True) as target:
            job_directory.move_out(own, job, target, file)

    def _remove_directory(self, job: Job) -> None:
        self.naming.drop(job.id)
        # the job has ended: what cannot be removed now is removed at the next start
        with contextlib.suppress(OSError), Folder(self.layout.work) as work:
            remove_tree(work, job.id)

    # --- a job that somebody has taken away ---

    def is_gone(self, job: Job) -> bool:
        """Whether the original was taken out of `.work`, so that nobody can do anything for the job any more.

        Raises:
            OSError: it cannot be read.
        """
        with Folder(self.layout.work) as work:
            if not work.exists(LOCK):
                return False  # the whole spool is away, perhaps unmounted, and may come back
            try:
                with Folder(self.layout.work, (job.id,)) as own:
                    return not own.exists(job.original)
            except FileNotFoundError:
                return True

    def forget(self, job: Job) -> None:
        """Remove what is left of a job that is gone."""
        with contextlib.suppress(OSError):
            self.status_files.hide(job)
            self.partials.hide(job)
        self._remove_directory(job)
