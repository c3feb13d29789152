"""From the inbox into `.work`: complete uploads become jobs, with all that is asked for them, as long as there is room."""

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
    """A spec, the ticket that goes along with the upload, and why it cannot be done, if it cannot."""

    spec: JobSpec
    own: Ticket | None = None
    failure: Failure | None = None


def ask(config: Config, name: str, known: Tickets) -> Asked:
    """Read the tickets of an upload and put them together with the configuration; bad ones fail this upload alone."""
    tickets = known.read(name) if config.tickets.enabled else ()
    own = next((each for each in tickets if each.suffix), None)
    try:
        return Asked(profiles.resolve(config, name, tickets), own)
    except InputError as error:
        plain = config.model_copy(update={"profiles": {}})
        return Asked(profiles.resolve(plain, name), own, Failure.of(error))


def claim(store: Store, upload: Upload, asked: Asked, now: float, failure: Failure | None = None) -> Job:
    """Take an upload out of the inbox with what is asked for it; raises what `Store.claim` raises."""
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
    """Whether there is room for another job; says once that claims are paused, and once that they continue."""

    def __init__(self, layout: Layout, emitter: events.Emitter) -> None:
        self._layout = layout
        self._emit = emitter.emit
        self._paused_until: float | None = None
        self.why = ""  # in a few words, for those who wait

    @property
    def is_paused(self) -> bool:
        """Whether nothing has been written since the last trouble."""
        return self._paused_until is not None

    def is_there(self, min_free: int, now: float) -> bool:
        """Whether a claim may be tried: `min_free` bytes are left, and the last pause is over."""
        if self._paused_until is not None and now < self._paused_until:
            return False
        try:
            free = self._layout.free_bytes()
        except OSError as error:
            message = f"the spool in {self._layout.root} cannot be used: {error.strerror}"
            self.pause(SpoolFull(message, hint="look into the cause; it goes on by itself"), now)
            return False
        if free < min_free:
            message = f"the disk is nearly full: {mebibytes(free)} free, {mebibytes(min_free)} wanted"
            self.pause(SpoolFull(message, hint="make room, or lower intake.min_free; it goes on by itself"), now)
            self.why = "the disk is nearly full"
            return False
        return True

    def pause(self, error: SpoolFull, now: float) -> None:
        """Claim nothing for a while."""
        if self._paused_until is None:
            self._emit(events.ClaimsPaused(error.message, error.hint))
        self._paused_until = now + PAUSE_SECONDS
        self.why = error.message

    def resume(self) -> None:
        """Say so only once something has been written: room for nothing is no room."""
        if self._paused_until is not None:
            self._paused_until = None
            self._emit(events.ClaimsResumed())


class Claiming(Part):
    """Claims in slices, and says of what stays in the inbox why it does."""

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
        """Use this configuration for what is claimed from now on."""
        self._config = config

    def tick(self, now: float) -> float:
        """Take settled uploads while there is room; returns when to come again."""
        return AT_ONCE if self._take(self._config, now) else now + PAUSE_SECONDS

    def _take(self, config: Config, now: float) -> bool:
        """Take some uploads; True if there may be more to take at once."""
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


class Arrivals(Part):
    """The inbox, as a part of the loop."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def waitables(self) -> list[Any]:
        """What becomes readable when something changes in the inbox."""
        return self._inbox.waitables()

    def configure(self, config: Config) -> None:
        """Use this configuration from now on."""
        self._inbox.configure(config.intake, tickets=config.tickets.enabled)

    def tick(self, now: float) -> float:
        """Look at what has changed."""
        self._inbox.tick(now)
        return self._inbox.next_at(now)

    def close(self) -> None:
        """Watch the inbox no more."""
        self._inbox.stop()


class EmittingExplainer:
    """Keeps the status files of uploads that wait in the inbox, and says what they say; the inbox's `Explainer`."""

    def __init__(self, store: Store, emitter: events.Emitter) -> None:
        self._store = store
        self._emit = emitter.emit

    def explain(self, name: str, size_bytes: int | None, reason: str) -> str | None:
        """Write one, as `StatusFiles.explain` does."""
        place = self._store.status_files.explain(name, size_bytes, reason)
        if place is not None:
            self._emit(events.UploadExplained(name, reason, place))
        return place

    def unexplain(self, place: str) -> None:
        """Remove one, as `StatusFiles.unexplain` does."""
        self._store.status_files.unexplain(place)
        self._emit(events.ExplanationRemoved(place))

    def explanation_of(self, name: str) -> str | None:
        """Where the one of an upload is, as `StatusFiles.explanation_of` says."""
        return self._store.status_files.explanation_of(name)

    def stale_explanations(self) -> Iterator[str | None]:
        """Those of uploads that are gone, as `StatusFiles.stale_explanations` finds them."""
        return self._store.status_files.stale_explanations()
