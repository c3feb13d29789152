"""Brings notices to where they belong, one at a time for each channel, again and again until they arrive.

A notice is on disk before the original of its job leaves `.work`, and until it has been delivered: whatever dies in
between, the next start finds it. So each arrives at least once, and a repetition has the same id, that of the job.
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
from whisperd.listeners.notifications.channels import channels, kind_of, notice_of
from whisperd.listeners.notifications.delivery import Delivery
from whisperd.listeners.notifications.queue import Queue

if TYPE_CHECKING:
    from whisperd.core.job import Failure, Job, Result
    from whisperd.listeners.notifications.queue import Notice
    from whisperd.settings.sections import NotificationOptions
    from whisperd.spool.layout import Layout

RETRY_SECONDS_MAX = 3600.0
JITTER = 0.2  # notices that failed together do not come back together
RESTORE_SECONDS = 60.0  # how soon the folder of notices is tried again when it could not be read
PASSING = {
    errno.EAGAIN,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ETXTBSY,
    errno.EIO,
}  # the machine's, not the command's
LOOK_SECONDS = 0.2  # how often the output of a running command is drained


@dataclass(order=True, slots=True)
class Waiting:
    """A notice whose time comes at `at`, monotonic; after `tries` that failed."""

    at: float
    number: int
    job_id: str
    tries: int = 0


@dataclass(slots=True)
class Running:
    """A notice that is being delivered."""

    waiting: Waiting
    notice: Notice
    delivery: Delivery
    since: float


class Dispatcher:
    """All notices of one spool; lives in the supervisor's loop and never waits for anybody.

    Raises nothing but what `announce` raises: whatever happens to a notice, the job has ended and stays as it is.
    """

    def __init__(self, layout: Layout, settings: NotificationOptions, emitter: events.Emitter) -> None:
        self._root = layout.root
        self._queue = Queue(layout)
        self._emit = emitter.emit
        self._number = itertools.count()
        self._announced: dict[str, list[str]] = {}
        self._waiting: dict[str, list[Waiting]] = {}
        self._running: dict[str, Running] = {}
        self._restore_at: float | None = None
        self.configure(settings)
        emitter.subscribe(self._heard)

    def __len__(self) -> int:
        """How many notices have not arrived."""
        return sum(map(len, self._waiting.values())) + len(self._running)

    def configure(self, settings: NotificationOptions) -> None:
        """Use these channels from now on; what waits for one that is gone is dropped when its time comes."""
        self._settings = settings
        self._channels = channels(settings)

    def restore(self) -> None:
        """Take up what an earlier daemon left; called before any job is brought to its end."""
        if not self._take_up():
            self._restore_at = 0.0

    def _take_up(self) -> bool:
        try:
            found = self._queue.waiting()
        except OSError as error:
            if self._restore_at is None:
                self._emit(events.NoticesUnreadable(str(error.filename), str(error.strerror)))
            return False
        known = {(each.job_id, channel) for channel, waiting in self._waiting.items() for each in waiting}
        known |= {(running.waiting.job_id, channel) for channel, running in self._running.items()}
        for job_id, channel in found:
            if (job_id, channel) not in known:
                self._push(channel, Waiting(0.0, next(self._number), job_id))
        return True

    def announce(self, job: Job, document: dict[str, Any], outcome: Result | Failure) -> None:
        """Write down that a job is about to reach its end; it is told once it has.

        Raises:
            OSError: no room.
        """
        event = document["status"]
        interested = [name for name, channel in self._channels.items() if event in channel.events]
        notice = notice_of(job, document, outcome, at=time.time())
        self._queue.put(job.id, interested, notice, not_for=self._channels.keys() - set(interested))
        self._announced[job.id] = interested

    def waitables(self) -> list[int]:
        """What becomes readable when a command ends."""
        return [running.delivery.pidfd for running in self._running.values()]

    def tick(self, now: float, *, start: bool = True) -> None:
        """See to the commands that run, and start those whose time has come."""
        for name, running in tuple(self._running.items()):
            if running.delivery.look(now):
                del self._running[name]
                self._ended(name, running, now)
        if self._restore_at is not None and self._restore_at <= now:
            self._restore_at = None if self._take_up() else now + RESTORE_SECONDS
        if start:
            for name, waiting in self._waiting.items():
                while name not in self._running and waiting and waiting[0].at <= now:
                    self._start(name, heapq.heappop(waiting), now)

    def next_at(self, now: float) -> float:
        """When `tick` has something to do again, if no command ends before."""
        free = [waiting[0].at for name, waiting in self._waiting.items() if waiting and name not in self._running]
        if self._restore_at is not None:
            free.append(self._restore_at)
        if self._running:
            free.append(now + LOOK_SECONDS)
        return min(free, default=now + 3600.0)

    def is_idle(self) -> bool:
        """Whether everything has been tried, and nothing runs."""
        untried = any(each.tries == 0 for waiting in self._waiting.values() for each in waiting)
        return not self._running and not untried

    def is_running(self) -> bool:
        """Whether a command runs."""
        return bool(self._running)

    def close(self) -> None:
        """End the commands that run; their notices are delivered after the next start."""
        for running in self._running.values():
            running.delivery.kill()
            running.delivery.reap()
        self._running.clear()

    def _heard(self, event: events.Event) -> None:
        if isinstance(event, events.JobFinished | events.JobFailed):
            for channel in self._announced.pop(event.job.id, ()):
                self._push(channel, Waiting(0.0, next(self._number), event.job.id))

    def _push(self, channel: str, waiting: Waiting) -> None:
        heapq.heappush(self._waiting.setdefault(channel, []), waiting)

    def _start(self, name: str, waiting: Waiting, now: float) -> None:
        channel = self._channels.get(name)
        try:
            notice = self._queue.get(waiting.job_id, name)
        except OSError as error:
            self._later(name, waiting, waiting.job_id, f"cannot read its file: {error.strerror}", now)
            return
        if channel is None or notice is None:
            reason = "it is not configured any more" if channel is None else "its file is damaged or gone"
            self._drop(name, waiting.job_id, notice.name if notice else waiting.job_id, reason)
            return
        paths = {key: os.path.join(self._root, path) for key, path in notice.paths.items()}
        document = (json.dumps(notice.sidecar, indent=2) + "\n").encode("ascii")
        try:
            delivery = Delivery(
                channel.command, {**notice.words, **paths}, document, deadline=now + channel.timeout_seconds
            )
        except ValueError:  # a NUL or a broken escape in a text of a damaged file
            self._drop(name, waiting.job_id, notice.name, "its file is damaged")
            return
        except OSError as error:
            reason = f"cannot start {channel.command[0]}: {error.strerror}"
            if channel.kind == "hook" and error.errno not in PASSING:
                hint = f"put it there or change notices.{name}; `whisperd check` shows whether it can be run"
                self._drop(name, waiting.job_id, notice.name, f"{reason}; {hint}")
            else:
                self._again(name, waiting, notice, reason, now)
            return
        self._running[name] = Running(waiting, notice, delivery, now)

    def _ended(self, name: str, running: Running, now: float) -> None:
        status, said = running.delivery.reap()
        waiting, notice, channel = running.waiting, running.notice, self._channels.get(name)
        if status == 0:
            self._queue.drop(waiting.job_id, name)
            self._emit(
                events.NoticeDelivered(kind_of(name), name, waiting.job_id, notice.name, now - running.since, said)
            )
            return
        reason = _reason(status, said, now - running.since)
        if channel is not None and channel.is_worth_another_try(status):
            self._again(name, waiting, notice, reason, now)
        else:
            self._drop(name, waiting.job_id, notice.name, reason)

    def _again(self, name: str, waiting: Waiting, notice: Notice, reason: str, now: float) -> None:
        # the clock on the wall, since pauses go on over restarts; one that jumps gives up early or late, never at once
        if time.time() - notice.at > self._settings.keep_seconds and waiting.tries:
            self._drop(name, waiting.job_id, notice.name, f"{reason}; given up after {waiting.tries + 1} tries")
            return
        self._later(name, waiting, notice.name, reason, now)

    def _later(self, name: str, waiting: Waiting, shown: str, reason: str, now: float) -> None:
        pause = min(RETRY_SECONDS_MAX, self._settings.retry_seconds * 2.0 ** min(waiting.tries, 30))
        pause *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  # spreads load, keeps no secret
        self._push(name, Waiting(now + pause, waiting.number, waiting.job_id, waiting.tries + 1))
        self._emit(events.NoticeDelayed(kind_of(name), name, waiting.job_id, shown, reason, pause))

    def _drop(self, name: str, job_id: str, shown: str, reason: str) -> None:
        self._queue.drop(job_id, name)
        self._emit(events.NoticeDropped(kind_of(name), name, job_id, shown, reason))


def _reason(status: int | None, said: str, seconds: float) -> str:
    if status is None:
        how = f"killed after {seconds:.0f} s"
    elif status < 0:
        how = f"killed by {signal.Signals(-status).name}"
    else:
        how = f"exit status {status}"
    return f"{how}: {said}" if said else how
