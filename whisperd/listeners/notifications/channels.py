"""The ways in which the end of a job is told; each is a command that gets the notice on standard input."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd.core.job import Result, Status
from whisperd.listeners.notifications.queue import Notice
from whisperd.spool import names

if TYPE_CHECKING:
    from typing import Any

    from whisperd.core.job import Failure, Job
    from whisperd.settings.sections import NotificationOptions

SENDER_SECONDS = 30.0  # for one webhook or mail, all in all
AGAIN = os.EX_TEMPFAIL  # how a command says: not now, try again
NEVER = os.EX_UNAVAILABLE  # how a sender says that its receiver is gone for good


@dataclass(frozen=True, slots=True)
class Channel:
    """One way: what it is about, what is run, and for how long."""

    kind: str  # hook, webhook or mail
    events: tuple[str, ...]
    command: tuple[str, ...]
    timeout_seconds: float

    def is_worth_another_try(self, status: int | None) -> bool:
        """Whether it is tried again after this exit status; None: it was killed at its deadline.

        A command of the operator's is run once, unless it asks for more: what it did the first time nobody knows.
        """
        return status == AGAIN or (self.kind != "hook" and status != NEVER)


def channels(settings: NotificationOptions) -> dict[str, Channel]:
    """All that are configured, by name."""
    found = {}
    for event, command in ((Status.COMPLETED, settings.on_completed), (Status.FAILED, settings.on_failed)):
        if command:
            found[f"on_{event}"] = Channel("hook", (event,), command, settings.hook_timeout_seconds)
    for name, webhook in settings.webhooks.items():
        command = _sender("webhook", webhook.url, str(webhook.secret))
        found[f"webhook-{name}"] = Channel("webhook", webhook.events, command, SENDER_SECONDS)
    if settings.mail_to:
        command = _sender("mail", str(settings.sendmail), settings.mail_from or "", *settings.mail_to)
        found["mail"] = Channel("mail", settings.mail_events, command, SENDER_SECONDS)
    return found


def kind_of(name: str) -> str:
    """The kind of a channel by its name, which is known even when the channel is not configured any more."""
    return "hook" if name.startswith("on_") else name.partition("-")[0]


def notice_of(job: Job, document: dict[str, Any], outcome: Result | Failure, *, at: float) -> Notice:
    """What is told of a job's end; paths are as they are on disk, the document shows them escaped."""
    completed = isinstance(outcome, Result)
    folders, file = names.split(job.place)
    words = {"WHISPERD_EVENT": str(document["status"]), "WHISPERD_ID": job.id, "WHISPERD_NAME": job.name}
    paths = {
        "WHISPERD_ORIGINAL": f"{'done' if completed else 'failed'}/{job.place}",
        "WHISPERD_STATUS_FILE": "outbox/" + names.join(folders, names.status_file(file)),
    }
    if isinstance(outcome, Result):
        folders, file = names.split(outcome.duplicate_of or job.place)
        for kind in outcome.outputs:
            paths[f"WHISPERD_OUTPUT_{kind.upper()}"] = "outbox/" + names.join(folders, names.output(file, kind))
    else:
        words["WHISPERD_ERROR"] = outcome.code
    return Notice(document["name"], at, words, paths, document)


def _sender(module: str, *arguments: str) -> tuple[str, ...]:
    # -P: a file called ssl.py in the current directory must not be what `import ssl` finds
    return (sys.executable, "-P", "-m", f"whisperd.listeners.notifications.{module}", *arguments)
