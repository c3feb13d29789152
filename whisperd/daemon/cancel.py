"""Obeys requests to cancel: a file `X.cancel` ends the jobs called X, and removes the upload X from the inbox.

The order makes it hold across a crash: what is claimed or under way is condemned on disk, then the request is removed, then
the jobs end. Before the first step nothing has happened; after any other the next daemon goes on.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from whisperd.core import events
from whisperd.core.display import printable
from whisperd.core.errors import SpoolError
from whisperd.core.job import Failure, Phase
from whisperd.core.slices import LONG_SLICE_SECONDS, Slice
from whisperd.daemon.admission import ask, claim
from whisperd.daemon.loop import AT_ONCE, NEVER, Part
from whisperd.intake.cancel_requests import KEPT_SECONDS
from whisperd.intake.upload import Upload
from whisperd.spool import names
from whisperd.spool.durable import Folder, failpoint

if TYPE_CHECKING:
    from whisperd.core.job import Job
    from whisperd.daemon.jobs import Jobs
    from whisperd.daemon.pool import Pool
    from whisperd.intake.cancel_requests import CancelRequest
    from whisperd.intake.inbox import Inbox
    from whisperd.settings.config import Config
    from whisperd.spool.recover import Recovery
    from whisperd.spool.store import Store

CODE = "cancelled"


class Cancels(Part):
    """The part of the loop that obeys requests to cancel."""

    def __init__(
        self, config: Config, store: Store, jobs: Jobs, pool: Pool, inbox: Inbox, *, emitter: events.Emitter
    ) -> None:
        self._config = config
        self._inbox = inbox
        self._store = store
        self._jobs = jobs
        self._pool = pool
        self._emit = emitter.emit
        self._ended: set[str] = set()  # before a crash: their requests may still lie there

    def restore(self, recovery: Recovery) -> None:
        """Take over what an earlier daemon left."""
        for job, failure in recovery.to_fail:
            if failure.code == CODE:
                self._ended |= {job.name, job.place}

    def configure(self, config: Config) -> None:
        """Use this configuration for uploads that are cancelled from now on."""
        self._config = config

    def tick(self, now: float) -> float:
        """Obey the requests that can be obeyed, and explain the others; returns the time of the next call."""
        share = Slice(LONG_SLICE_SECONDS)
        for request in self._inbox.cancel_requests.due(now):
            try:
                self._answer(request, now)
            except (OSError, SpoolError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                self._inbox.refuse(request.name, f"cannot be obeyed, or not be removed: {reason}", now)
            if share.is_used_up():
                return AT_ONCE  # the others stay due
        return NEVER  # the inbox says when the next one is due

    def _answer(self, request: CancelRequest, now: float) -> None:
        failure = self._failure(request)
        if failure is None:
            self._inbox.cancel_requests.forget(request.name)
            return
        condemned: list[Job] = []
        try:
            for job in self._jobs.registry.called(request.target):
                self._condemn(job, failure)
                condemned.append(job)
            upload = self._inbox.seize(request.target, now)
            if isinstance(upload, Upload):
                condemned.append(self._claimed(upload, failure, now))
            if isinstance(upload, str):
                self._inbox.refuse(request.name, upload, now)
            elif condemned or request.target in self._ended or now - request.since >= KEPT_SECONDS:
                self._ended.discard(request.target)
                self._inbox.cancel_requests.close(request)
                failpoint("cancel.after_request")
            else:
                known = f"nothing called {printable(request.target)} waits or runs"
                self._inbox.refuse(request.name, f"{known}; this request is removed after {KEPT_SECONDS:.0f} s", now)
        finally:  # whatever has become of the request
            for job in condemned:
                if not self._jobs.cancel(job, failure, now):
                    self._pool.cancel(job.id, failure, now)

    def _claimed(self, upload: Upload, failure: Failure, now: float) -> Job:
        try:
            job = claim(self._store, upload, ask(self._config, upload.name, self._inbox.tickets), now)
        except SpoolError:
            self._inbox.see_again(upload.name, now)
            raise
        failpoint("cancel.after_claim")
        self._condemn(job, failure)
        self._inbox.claimed(upload.name)
        self._emit(events.JobClaimed(job, now - upload.first_seen))
        return job

    def _condemn(self, job: Job, failure: Failure) -> None:
        self._store.condemn(job, failure)
        failpoint("cancel.after_record")

    def _failure(self, request: CancelRequest) -> Failure | None:
        """Make the failure for the status file; None if the request was removed."""
        folders, file = names.split(request.name)
        try:
            with Folder(self._store.layout.inbox, folders) as folder:
                owner = os.stat(file, dir_fd=folder.fd, follow_symlinks=False).st_uid
        except OSError:
            return None
        return Failure(
            CODE,
            f"cancelled by {printable(request.name)}, a file of user {owner}",
            "`whisperd retry`, or moving it from failed/ back into the inbox, has it transcribed after all",
            stage=Phase.QUEUED,
        )
