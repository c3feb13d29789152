"""From the inbox into `.work`: complete uploads become jobs, as long as there is room for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.core import events
from whisperd.core.errors import ClaimLost, ClaimRefused, SpoolFull
from whisperd.core.slices import LONG_SLICE_SECONDS, Slice
from whisperd.daemon.orders import ask, claim

if TYPE_CHECKING:
    from whisperd.core.job import Failure, Job
    from whisperd.daemon.jobs import Jobs
    from whisperd.daemon.room import Room
    from whisperd.intake.inbox import Inbox
    from whisperd.intake.upload import Upload
    from whisperd.settings.config import Config
    from whisperd.spool.store import Store


class Claiming:
    """Claims in slices, and says of what stays in the inbox why it does."""

    def __init__(self, store: Store, jobs: Jobs, inbox: Inbox, room: Room, emitter: events.Emitter) -> None:
        self._store = store
        self._jobs = jobs
        self._inbox = inbox
        self._room = room
        self._emit = emitter.emit

    def tick(self, config: Config, now: float) -> bool:
        """Take settled uploads while there is room; True if there may be more to take at once."""
        if not self._room.is_there(config.intake.min_free, now):
            self._inbox.hold(self._room.why)
            return False
        if not self._settle(now):
            return False
        share = Slice(LONG_SLICE_SECONDS)
        while True:
            if self._jobs.waiting >= config.pool.queue_size:
                self._inbox.hold(f"the queue is full, {self._jobs.waiting} before it")
                return False
            upload = self._inbox.take(now, share)
            if upload is None:
                self._room.resume()
                return self._inbox.has_more()
            if not self._claim(upload, config, now):
                return False
            if share.is_used_up():
                return True

    def _claim(self, upload: Upload, config: Config, now: float) -> bool:
        """Make a job of an upload, if it is still what had settled; False if nothing can be claimed for now."""
        try:
            asked = ask(config, upload.name, self._inbox.tickets)
            failure = upload.failure or asked.failure
            job = claim(self._store, upload, asked, now, failure)
        except ClaimLost:
            self._inbox.see_again(upload.name, now)
        except ClaimRefused as error:
            self._inbox.refuse(upload.name, str(error), now)
        except SpoolFull as error:
            self._inbox.put_back(upload)
            self._room.pause(error, now)
            return False
        else:
            self._room.resume()
            self._inbox.claimed(upload.name)
            self._receive(job, failure, now - upload.first_seen, now)
        return True

    def _receive(self, job: Job, failure: Failure | None, waited_seconds: float, now: float) -> None:
        self._emit(events.JobClaimed(job, waited_seconds))
        if failure:
            self._jobs.reject(job, failure, now)
        else:
            self._jobs.receive(job)

    def _settle(self, now: float) -> bool:
        """Take over what came of claims that were cut off by an I/O error; False while that cannot be told."""
        try:
            jobs = self._store.repair_claims()
        except SpoolFull as error:
            self._room.pause(error, now)
            return False
        for job, failure in jobs:
            self._inbox.claimed(job.name)
            self._receive(job, failure, 0.0, now)
        return True
