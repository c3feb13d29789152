"""What is to be done with an upload: settled here, once, at the moment when it is claimed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from whisperd.core.errors import InputError
from whisperd.core.job import Failure, utc_now
from whisperd.intake.ticket import Tickets
from whisperd.settings import profiles

if TYPE_CHECKING:
    from whisperd.core.job import Job, Ticket
    from whisperd.core.options import JobSpec
    from whisperd.intake.upload import Upload
    from whisperd.settings.config import Config
    from whisperd.spool.store import Store


def spec_of(config: Config, job: Job) -> JobSpec:
    """The spec of a job, within today's limits; a job whose record has none gets what it would get today."""
    spec = job.spec or ask(config, job.name, Tickets(config.root / "inbox")).spec
    return replace(spec, output=spec.output.evolve(formats=job.formats)).within(config.media)


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
