"""What is to be done with an upload: settled here, once, at the moment when it is claimed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from whisperd import profiles
from whisperd.errors import InputError
from whisperd.intake import ticket
from whisperd.job import Failure, utc_now

if TYPE_CHECKING:
    from whisperd.config import Config
    from whisperd.intake.upload import Upload
    from whisperd.job import Job
    from whisperd.options import Order, Ticket
    from whisperd.spool.store import Store


def order_of(config: Config, job: Job) -> Order:
    """The order of a job; one that was claimed by a daemon that knew none gets what it would get today."""
    order = job.order or ask(config, job.name).order
    return replace(order, output=replace(order.output, formats=job.formats))


@dataclass(frozen=True, slots=True)
class Asked:
    """An order, the ticket that goes along with the upload, and why it cannot be done, if it cannot."""

    order: Order
    own: Ticket | None = None
    failure: Failure | None = None


def ask(config: Config, name: str) -> Asked:
    """Read the tickets of an upload and put them together with the configuration; bad ones fail this upload alone."""
    tickets = ticket.read(config.root / "inbox", name) if config.tickets.enabled else ()
    own = next((each for each in tickets if each.suffix), None)
    try:
        return Asked(profiles.resolve(config, name, tickets), own)
    except InputError as error:
        plain = config.model_copy(update={"profiles": {}})
        return Asked(profiles.resolve(plain, name), own, Failure.of(error))


def claim(store: Store, upload: Upload, asked: Asked, now: float, failure: Failure | None = None) -> Job:
    """Take an upload out of the inbox with what is asked for it; raises what `Store.claim` raises."""
    return store.claim(
        upload.name,
        upload.signature,
        asked.order.output.formats,
        created_at=utc_now(now - upload.first_seen),
        order=asked.order,
        ticket=asked.own,
        failure=failure,
    )
