"""Follows tickets that correct completed jobs: one at a time, rendered by a process of its own and published from here.

A transcript that a user can change, and patterns that a user can choose, could take long or worse, so the supervisor neither
reads nor renders them.
"""

from __future__ import annotations

import collections
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd.core import events
from whisperd.core.correction import recording_of
from whisperd.core.display import printable
from whisperd.core.errors import CorrectionRefused
from whisperd.core.slices import LONG_SLICE_SECONDS, Slice, advance
from whisperd.daemon.loop import AT_ONCE, Part
from whisperd.listeners.notifications.channel import Delivery
from whisperd.settings.correction import parse, recording_named
from whisperd.spool import names
from whisperd.spool.corrections import Corrections
from whisperd.spool.durable import failpoint, remedy

if TYPE_CHECKING:
    from collections.abc import Generator

    from whisperd.core.correction import Correction
    from whisperd.core.job import Ticket
    from whisperd.intake.inbox import Inbox
    from whisperd.settings.config import Config
    from whisperd.spool.corrections import Completed
    from whisperd.spool.store import Store

RENDER_SECONDS = 120.0  # for one correction, then its process is killed; an hour of speech takes less than one
EARLY_SECONDS = 10.0  # until it is seen again whether the job of a correction has completed
PAUSE_SECONDS = 5.0  # after an error of the disk
LOOK_SECONDS = 0.2  # how often the process is seen to, beside its end

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rendering:
    """A correction that is being rendered."""

    number: str
    ticket: Ticket
    completed: Completed
    correction: Correction
    process: Delivery


class Correcting(Part):
    """The part of the loop that makes corrections."""

    def __init__(self, config: Config, store: Store, inbox: Inbox, emitter: events.Emitter) -> None:
        self._config = config
        self._inbox = inbox
        self._corrections = Corrections(store.layout, store.naming, store.status_files)
        self._emit = emitter.emit
        self._planned: collections.deque[str] = collections.deque()
        self._rendering: Rendering | None = None
        self._publishing: tuple[str, Generator[None, None, None]] | None = None
        self._paused_until = AT_ONCE
        self._has_completed = False  # a job, since the last tick
        emitter.subscribe(self._heard)

    def restore(self) -> None:
        """Take over the corrections that an earlier daemon has planned."""
        self._planned.extend(self._corrections.unfinished())

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being corrected, and no ticket asks for it."""
        is_busy = self._rendering is not None or self._publishing is not None or self._planned or self._has_completed
        return not is_busy and not self._inbox.tickets.has_unread

    def configure(self, config: Config) -> None:
        """Use this configuration for corrections that begin from now on."""
        self._config = config

    def waitables(self) -> list[int]:
        """Return what becomes readable when the process that renders ends."""
        return [] if self._rendering is None else [self._rendering.process.pidfd]

    def tick(self, now: float) -> float:
        """Continue the current correction, or begin the next one; returns the time of the next call."""
        if self._has_completed:
            self._has_completed = False
            self._inbox.tickets.job_completed(now)
        if now < self._paused_until:
            return self._paused_until
        try:
            if self._rendering is not None:
                return self._follow(self._rendering, now)
            if self._publishing is None and self._planned:
                number = self._planned.popleft()
                self._publishing = number, self._publish(number)
            if self._publishing is not None:
                return self._continue(*self._publishing)
            return self._begin_next(now)
        except OSError as error:
            _log.error("a correction is delayed: %s; %s", error.strerror, remedy(error))  # no bug
            self._paused_until = now + PAUSE_SECONDS
            return self._paused_until

    def close(self) -> None:
        """End the process that renders; the next daemon begins that correction again."""
        if self._rendering is not None:
            self._rendering.process.kill()
            self._rendering.process.reap()
            self._rendering = None

    def _begin_next(self, now: float) -> float:
        share = Slice(LONG_SLICE_SECONDS)
        for ticket in self._inbox.corrections(now):
            if ticket is not None and self._begin(ticket, now):
                return now + LOOK_SECONDS
            if share.is_used_up():
                return AT_ONCE
        return self._inbox.tickets.next_at()

    def _begin(self, ticket: Ticket, now: float) -> bool:
        """Begin to render what a ticket asks for; False if it was refused."""
        try:
            place = place_of(ticket)
            correction = parse(self._config, ticket.values, by=ticket.name, allowed=self._config.tickets.allow)
            completed = self._corrections.find(place)
        except CorrectionRefused as error:
            self._deny(ticket, error, now)
            return False
        try:
            number = self._corrections.begin(self._corrections.request(self._config, completed, correction))
            try:
                process = Delivery(
                    # -P: a file called json.py in the current directory must not be what `import json` finds
                    [sys.executable, "-P", "-m", "whisperd.worker.rerender", str(self._corrections.directory(number))],
                    {},
                    b"",
                    deadline=now + RENDER_SECONDS,
                )
            except BaseException:
                self._corrections.remove(number)
                raise
        except OSError as error:
            self._inbox.judge(
                ticket.name, f"this correction is delayed: {error.strerror}", again_at=now + PAUSE_SECONDS
            )
            raise
        self._rendering = Rendering(number, ticket, completed, correction, process)
        return True

    def _follow(self, rendering: Rendering, now: float) -> float:
        """Wait for the process that renders, then plan what is to be published."""
        if not rendering.process.has_ended(now):
            return now + LOOK_SECONDS
        self._rendering = None
        status, output = rendering.process.reap()
        if status != 0:
            how = "took too long" if status is None else f"ended with status {status}"
            _log.error("%s: the process that renders %s: %s", printable(rendering.ticket.name), how, output)
        failpoint("correct.after_rendering")
        try:
            self._corrections.plan(rendering.number, rendering.completed, rendering.correction, rendering.ticket)
        except CorrectionRefused as error:
            self._deny(rendering.ticket, error, now)
            return AT_ONCE
        except OSError as error:
            reason = f"this correction is delayed: {error.strerror}"
            self._inbox.judge(rendering.ticket.name, reason, again_at=now + PAUSE_SECONDS)
            self._corrections.remove(rendering.number)
            raise
        self._planned.append(rendering.number)
        return AT_ONCE

    def _continue(self, number: str, publishing: Generator[None, None, None]) -> float:
        try:
            if not advance(publishing):
                self._publishing = None
        except BaseException:
            self._publishing = None
            self._planned.appendleft(number)
            raise
        return AT_ONCE

    def _publish(self, number: str) -> Generator[None, None, None]:
        plan = yield from self._corrections.carry_out(number)
        if plan.ticket:
            self._inbox.judge(plan.ticket, "")  # it is gone, or has changed
        kept = tuple(plan.kept.values())
        self._emit(events.CorrectionMade(plan.place, plan.entry["by"], kept, plan.document.get("id")))

    def _deny(self, ticket: Ticket, error: CorrectionRefused, now: float) -> None:
        again_at = now + EARLY_SECONDS if error.is_early else None
        if self._inbox.tickets.verdict(ticket.name) != (verdict := f"this correction is not made: {error}"):
            self._emit(events.CorrectionDenied(ticket.name, str(error)))
        self._inbox.judge(ticket.name, verdict, again_at=again_at, is_early=error.is_early)

    def _heard(self, event: events.Event) -> None:
        if isinstance(event, events.JobFinished):
            self._has_completed = True


def place_of(ticket: Ticket) -> str:
    """The place of the completed job that a ticket corrects: in its own folder, whatever it says.

    Raises:
        CorrectionRefused: it names no file.
    """
    folders, file = names.split(ticket.name)
    named = recording_named(ticket.values) or recording_of(file) or file.rpartition(".")[0]
    return names.join(folders, named)
