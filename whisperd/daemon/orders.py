"""What is to be done with an upload: settled here, once, at the moment when it is claimed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from whisperd import profiles
from whisperd.errors import InputError
from whisperd.intake import ticket
from whisperd.job import Failure

if TYPE_CHECKING:
    from whisperd.config import Config
    from whisperd.job import Job
    from whisperd.options import Order, Ticket


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
