"""Delivers notifications: one at a time for each channel, repeated until they arrive.

A notification is on disk before the original of its job leaves `.work`, and until it has been delivered: whatever dies in
between, the next start finds it. So each arrives at least once, and a repetition has the same id, that of the job.

A kind of notification is registered in `KINDS`. It is a module with `channels(settings)`, which names its channels `<kind>` or
`<kind>-<name>`, and with a `main` that sends what comes on standard input. Only the operator's own commands (`hook`) need no
program of ours and are defined here.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import json
import os
import random
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whisperd.core import events
from whisperd.core.job import Status
from whisperd.listeners.notifications import apprise, mail, webhook
from whisperd.listeners.notifications.channel import Channel, Delivery
from whisperd.listeners.notifications.notification import Notification, Undelivered

if TYPE_CHECKING:
    from whisperd.core.job import Failure, Job, Result
    from whisperd.settings.config import Config
    from whisperd.settings.sections import NotificationOptions
    from whisperd.spool.layout import Layout

HOOK = "hook"
RETRY_SECONDS_MAX = 3600.0
JITTER = 0.2  # notifications that failed together are not repeated together
RESTORE_SECONDS = 60.0  # pause before the folder of notifications is read again that could not be read
PASSING = {
    errno.EAGAIN,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ETXTBSY,
    errno.EIO,
}  # the machine is at a limit; nothing is wrong with the command
LOOK_SECONDS = 0.2  # how often the output of a running command is read


def _hooks(settings: NotificationOptions) -> dict[str, Channel]:
    commands = {Status.COMPLETED: settings.on_completed, Status.FAILED: settings.on_failed}
    return {
        f"on_{event}": Channel(HOOK, (event,), command, settings.hook_timeout_seconds, is_repeatable=False)
        for event, command in commands.items()
        if command
    }


KINDS = (_hooks, webhook.channels, mail.channels, apprise.channels)


def channels(settings: NotificationOptions) -> dict[str, Channel]:
    """Return all channels that are configured, by name."""
    return {name: channel for kind in KINDS for name, channel in kind(settings).items()}


def kind_of(name: str) -> str:
    """Return the kind of a channel from its name, also when the channel is not configured any more."""
    return HOOK if name.startswith("on_") else name.partition("-")[0]


@dataclass(order=True, slots=True)
class Pending:
    """A notification to deliver at `at`, monotonic, after `tries` that failed."""

    at: float
    number: int
    job_id: str
    tries: int = 0


@dataclass(slots=True)
class DeliveryAttempt:
    """A notification that is being delivered, since `since`, monotonic."""

    pending: Pending
    notification: Notification
    delivery: Delivery
    since: float


class Dispatcher:
    """Delivers all notifications of one spool; runs in the supervisor's loop and never blocks it.

    Nothing but `announce` raises: whatever happens to a notification, the job has ended and stays as it is.
    """

    def __init__(self, layout: Layout, settings: NotificationOptions, emitter: events.Emitter) -> None:
        self._root = layout.root
        self._files = Undelivered(layout)
        self._emit = emitter.emit
        self._number = itertools.count()
        self._announced: dict[str, list[str]] = {}
        self._pending: dict[str, list[Pending]] = {}
        self._running: dict[str, DeliveryAttempt] = {}
        self._restore_at: float | None = None
        self._is_winding_down = False
        self._use(settings)
        emitter.subscribe(self._heard)

    def __len__(self) -> int:
        """How many notifications have not been delivered."""
        return sum(map(len, self._pending.values())) + len(self._running)

    def configure(self, config: Config) -> None:
        """Use these channels from now on; notifications for one that is gone are dropped when their time comes."""
        self._use(config.notices)

    def _use(self, settings: NotificationOptions) -> None:
        self._settings = settings
        self._channels = channels(settings)

    def restore(self) -> None:
        """Read what an earlier daemon left; to be called before any job reaches its end."""
        if not self._read():
            self._restore_at = 0.0

    def _read(self) -> bool:
        try:
            found = self._files.list()
        except OSError as error:
            if self._restore_at is None:
                self._emit(events.NotificationsUnreadable(str(error.filename), str(error.strerror)))
            return False
        known = {(each.job_id, channel) for channel, pending in self._pending.items() for each in pending}
        known |= {(attempt.pending.job_id, channel) for channel, attempt in self._running.items()}
        for job_id, channel in found:
            if (job_id, channel) not in known:
                self._push(channel, Pending(0.0, next(self._number), job_id))
        return True

    def announce(self, job: Job, document: dict[str, Any], outcome: Result | Failure) -> None:
        """Write down the notifications of a job that is about to end; they are delivered once it has ended.

        This is a step of publishing (`whisperd.spool.store`).

        Raises:
            OSError: no room.
        """
        event = document["status"]
        notification = Notification.of(job, document, outcome, at=time.time())
        interested = [
            name for name, channel in self._channels.items() if channel.is_interested(event, notification.words)
        ]
        self._files.put(job.id, interested, notification, not_for=self._channels.keys() - set(interested))
        self._announced[job.id] = interested

    def waitables(self) -> list[int]:
        """Return what becomes readable when a command ends."""
        return [attempt.delivery.pidfd for attempt in self._running.values()]

    def wind_down(self) -> None:
        """Start no more commands: the daemon stops."""
        self._is_winding_down = True

    def tick(self, now: float) -> float:
        """Collect the commands that have ended, start those that are due, and return when to come again."""
        for name, attempt in tuple(self._running.items()):
            if attempt.delivery.has_ended(now):
                del self._running[name]
                self._ended(name, attempt, now)
        if self._restore_at is not None and self._restore_at <= now:
            self._restore_at = None if self._read() else now + RESTORE_SECONDS
        if not self._is_winding_down:
            for name, pending in self._pending.items():
                while name not in self._running and pending and pending[0].at <= now:
                    self._start(name, heapq.heappop(pending), now)
        return self.next_at(now)

    def next_at(self, now: float) -> float:
        """Return when `tick` has something to do again, unless a command ends before."""
        free = [
            pending[0].at
            for name, pending in self._pending.items()
            if pending and name not in self._running and not self._is_winding_down
        ]
        if self._restore_at is not None:
            free.append(self._restore_at)
        if self._running:
            free.append(now + LOOK_SECONDS)
        return min(free, default=now + 3600.0)

    def is_idle(self) -> bool:
        """Tell whether everything has been tried at least once, and nothing runs."""
        untried = any(each.tries == 0 for pending in self._pending.values() for each in pending)
        return not self._running and not untried

    def is_running(self) -> bool:
        """Tell whether a command runs."""
        return bool(self._running)

    def close(self) -> None:
        """Kill the commands that run; their notifications are delivered after the next start."""
        for attempt in self._running.values():
            attempt.delivery.kill()
            attempt.delivery.reap()
        self._running.clear()

    def _heard(self, event: events.Event) -> None:
        if isinstance(event, events.JobFinished | events.JobFailed):
            for channel in self._announced.pop(event.job.id, ()):
                self._push(channel, Pending(0.0, next(self._number), event.job.id))

    def _push(self, channel: str, pending: Pending) -> None:
        heapq.heappush(self._pending.setdefault(channel, []), pending)

    def _start(self, name: str, pending: Pending, now: float) -> None:
        channel = self._channels.get(name)
        try:
            notification = self._files.get(pending.job_id, name)
        except OSError as error:
            self._postpone(name, pending, pending.job_id, f"cannot read its file: {error.strerror}", now)
            return
        if channel is None or notification is None:
            reason = "it is not configured any more" if channel is None else "its file is damaged or gone"
            self._drop(name, pending.job_id, notification.name if notification else pending.job_id, reason)
            return
        paths = {key: os.path.join(self._root, path) for key, path in notification.paths.items()}
        environment = {**notification.words, **paths, "WHISPERD_SPOOL": str(self._root), **channel.environment}
        status_file = (json.dumps(notification.status, indent=2) + "\n").encode("ascii")
        try:
            delivery = Delivery(channel.command, environment, status_file, deadline=now + channel.timeout_seconds)
        except ValueError:  # a NUL or a broken escape in a text of a damaged file
            self._drop(name, pending.job_id, notification.name, "its file is damaged")
            return
        except OSError as error:
            reason = f"cannot start {channel.command[0]}: {error.strerror}"
            if channel.kind == HOOK and error.errno not in PASSING:
                hint = f"put it there or change notices.{name}; `whisperd check` shows whether it can be run"
                self._drop(name, pending.job_id, notification.name, f"{reason}; {hint}")
            else:
                self._try_again(name, pending, notification, reason, now)
            return
        self._running[name] = DeliveryAttempt(pending, notification, delivery, now)

    def _ended(self, name: str, attempt: DeliveryAttempt, now: float) -> None:
        status, output = attempt.delivery.reap()
        pending, notification, channel = attempt.pending, attempt.notification, self._channels.get(name)
        seconds = now - attempt.since
        if status == 0:
            self._files.drop(pending.job_id, name)
            self._emit(
                events.NotificationDelivered(kind_of(name), name, pending.job_id, notification.name, seconds, output)
            )
            return
        reason = _reason(status, output, seconds)
        if channel is not None and channel.is_worth_another_try(status):
            self._try_again(name, pending, notification, reason, now)
        else:
            self._drop(name, pending.job_id, notification.name, reason)

    def _try_again(self, name: str, pending: Pending, notification: Notification, reason: str, now: float) -> None:
        # wall-clock time, since the pauses go on over restarts; if it jumps, this gives up early or late, never at once
        if time.time() - notification.at > self._settings.keep_seconds and pending.tries:
            self._drop(name, pending.job_id, notification.name, f"{reason}; given up after {pending.tries + 1} tries")
            return
        self._postpone(name, pending, notification.name, reason, now)

    def _postpone(self, name: str, pending: Pending, title: str, reason: str, now: float) -> None:
        pause = min(RETRY_SECONDS_MAX, self._settings.retry_seconds * 2.0 ** min(pending.tries, 30))
        pause *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  # spreads load, keeps no secret
        self._push(name, Pending(now + pause, pending.number, pending.job_id, pending.tries + 1))
        self._emit(events.NotificationDelayed(kind_of(name), name, pending.job_id, title, reason, pause))

    def _drop(self, name: str, job_id: str, title: str, reason: str) -> None:
        self._files.drop(job_id, name)
        self._emit(events.NotificationDropped(kind_of(name), name, job_id, title, reason))


def _reason(status: int | None, output: str, seconds: float) -> str:
    if status is None:
        how = f"killed after {seconds:.0f} s"
    elif status < 0:
        how = f"killed by {signal.Signals(-status).name}"
    else:
        how = f"exit status {status}"
    return f"{how}: {output}" if output else how
