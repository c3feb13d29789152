"""Claims complete uploads from the inbox as jobs, with their options, while there is room for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whisperd.core import events
from whisperd.core.display import mebibytes
from whisperd.core.errors import ClaimLost, ClaimRefused, InputError, SpoolFull
from whisperd.core.job import Failure, utc_now
from whisperd.core.slices import LONG_SLICE_SECONDS, Slice
from whisperd.daemon.loop import AT_ONCE, Part
from whisperd.settings import profiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.core.job import Job, Ticket
    from whisperd.core.options import JobSpec
    from whisperd.daemon.jobs import Jobs
    from whisperd.intake.inbox import Inbox
    from whisperd.intake.ticket import Tickets
    from whisperd.intake.upload import Upload
    from whisperd.settings.config import Config
    from whisperd.spool.layout import Layout
    from whisperd.spool.store import Store

PAUSE_SECONDS = 5.0  # between looks at a full disk


@dataclass(frozen=True, slots=True)
class Asked:
    """The job spec of an upload, its ticket, and the failure if the options are wrong."""

    spec: JobSpec
    own: Ticket | None = None
    failure: Failure | None = None


def ask(config: Config, name: str, known: Tickets) -> Asked:
    """Make the job spec of an upload from the configuration and its tickets; bad tickets fail only this upload."""
    tickets = known.read(name) if config.tickets.enabled else ()
    own = next((each for each in tickets if each.suffix), None)
    try:
        return Asked(profiles.resolve(config, name, tickets), own)
    except InputError as error:
        plain = config.model_copy(update={"profiles": {}})
        return Asked(profiles.resolve(plain, name), own, Failure.of(error))


def claim(store: Store, upload: Upload, asked: Asked, now: float, failure: Failure | None = None) -> Job:
    """Claim an upload with its options; raises what `Store.claim` raises."""
    assert upload.signature is not None  # nothing else is ever complete
    return store.claim(
        upload.name,
        upload.signature,
        asked.spec.output.formats,
        created_at=utc_now(now - upload.first_seen),
        spec=asked.spec,
        ticket=asked.own,
        failure=failure,
    )


class Room:
    """Checks whether the disk has room for another job; reports once that claiming stops and once that it continues."""

    def __init__(self, layout: Layout, emitter: events.Emitter) -> None:
        self._layout = layout
        self._emit = emitter.emit
        self._paused_until: float | None = None
        self.why = ""  # in a few words, for those who wait

    @property
    def is_paused(self) -> bool:
        """Whether claiming is paused: nothing could be written since the last error."""
        return self._paused_until is not None

    def is_there(self, min_free: int, now: float) -> bool:
        """Whether a claim may be tried: `min_free` bytes are free and the last pause is over."""
        if self._paused_until is not None and now < self._paused_until:
            return False
        try:
            free = self._layout.free_bytes()
        except OSError as error:
            message = f"the spool in {self._layout.root} cannot be used: {error.strerror}"
            self.pause(
                SpoolFull(message, hint="see the journal of the kernel for the cause; claiming then continues"), now
            )
            return False
        if free < min_free:
            message = f"the disk is nearly full: {mebibytes(free)} free, {mebibytes(min_free)} wanted"
            self.pause(
                SpoolFull(message, hint="free disk space, or lower intake.min_free; claiming then continues"), now
            )
            self.why = "the disk is nearly full"
            return False
        return True

    def pause(self, error: SpoolFull, now: float) -> None:
        """Pause claiming for a while after an error."""
        if self._paused_until is None:
            self._emit(events.ClaimsPaused(error.message, error.hint))
        self._paused_until = now + PAUSE_SECONDS
        self.why = error.message

    def resume(self) -> None:
        """End the pause after something was written successfully."""
        if self._paused_until is not None:
            self._paused_until = None
            self._emit(events.ClaimsResumed())


class Claiming(Part):
    """The part of the loop that claims uploads, in slices of time, and explains why others stay in the inbox."""

    def __init__(
        self, config: Config, store: Store, jobs: Jobs, inbox: Inbox, room: Room, *, emitter: events.Emitter
    ) -> None:
        self._config = config
        self._store = store
        self._jobs = jobs
        self._inbox = inbox
        self._room = room
        self._emit = emitter.emit

    def configure(self, config: Config) -> None:
        """Use this configuration for uploads that are claimed from now on."""
        self._config = config

    def tick(self, now: float) -> float:
        """Claim complete uploads while there is room; returns the time of the next call."""
        return AT_ONCE if self._take(now) else now + PAUSE_SECONDS

    def _take(self, now: float) -> bool:
        """Claim some uploads; True if there may be more at once."""
        if not self._room.is_there(self._config.intake.min_free, now):
            self._inbox.hold(self._room.why)
            return False
        if not self._settle(now):
            return False
        share = Slice(LONG_SLICE_SECONDS)
        while True:
            if self._jobs.waiting >= self._config.pool.queue_size:
                self._inbox.hold(f"the queue is full, {self._jobs.waiting} before it")
                return False
            upload = self._inbox.take(now, share)
            if upload is None:
                self._room.resume()
                return self._inbox.has_more()
            if not self._claim(upload, now):
                return False
            if share.is_used_up():
                return True

    def _claim(self, upload: Upload, now: float) -> bool:
        """Claim an upload if it has not changed since it settled; False if nothing can be claimed for now."""
        try:
            asked = ask(self._config, upload.name, self._inbox.tickets)
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
        """Repair claims that an I/O error interrupted; False if the outcome is not known yet."""
        try:
            jobs = self._store.repair_claims()
        except SpoolFull as error:
            self._room.pause(error, now)
            return False
        for job, failure in jobs:
            self._inbox.claimed(job.name)
            self._receive(job, failure, 0.0, now)
        return True


class Arrivals(Part):
    """The part of the loop that watches and scans the inbox."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def waitables(self) -> list[Any]:
        """Return the descriptors that become readable when something changes in the inbox."""
        return self._inbox.waitables()

    def configure(self, config: Config) -> None:
        """Use this configuration from now on."""
        self._inbox.configure(config.intake, tickets=config.tickets.enabled)

    def tick(self, now: float) -> float:
        """Process what has changed in the inbox."""
        self._inbox.tick(now)
        return self._inbox.next_at(now)

    def close(self) -> None:
        """Stop watching the inbox."""
        self._inbox.stop()


class EmittingExplainer:
    """Writes the status files of waiting uploads for the inbox, and emits an event for each."""

    def __init__(self, store: Store, emitter: events.Emitter) -> None:
        self._store = store
        self._emit = emitter.emit

    def explain(self, name: str, size_bytes: int | None, reason: str) -> str | None:
        """Write the status file of a waiting upload, as `StatusFiles.explain` does."""
        place = self._store.status_files.explain(name, size_bytes, reason)
        if place is not None:
            self._emit(events.UploadExplained(name, reason, place))
        return place

    def unexplain(self, place: str) -> None:
        """Remove the status file of a waiting upload, as `StatusFiles.unexplain` does."""
        self._store.status_files.unexplain(place)
        self._emit(events.ExplanationRemoved(place))

    def explanation_of(self, name: str) -> str | None:
        """Find the status file of a waiting upload, as `StatusFiles.explanation_of` does."""
        return self._store.status_files.explanation_of(name)

    def stale_explanations(self) -> Iterator[str | None]:
        """Find status files of uploads that are gone, as `StatusFiles.stale_explanations` does."""
        return self._store.status_files.stale_explanations()
