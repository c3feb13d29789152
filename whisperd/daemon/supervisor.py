"""The daemon itself: one loop that waits for workers, events and signals, and then acts.

Nothing here blocks for long, imports a model library or takes a lock; the service manager's watchdog is fed by this loop.
"""

from __future__ import annotations

import collections
import logging
import signal
import time
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from whisperd.core.display import printable
from whisperd.core.errors import EXIT_FAILED, EXIT_OK, BootError, ConfigError, SpoolError, SpoolFull
from whisperd.core.events import LoopTurned
from whisperd.core.job import original_url
from whisperd.core.slices import LONG_SLICE_SECONDS, Slice, StepTimes
from whisperd.daemon.cancel import Cancels
from whisperd.daemon.chores import Chores
from whisperd.daemon.claiming import Claiming
from whisperd.daemon.jobs import Jobs
from whisperd.daemon.pool import Interrupted, Pool
from whisperd.daemon.room import PAUSE_SECONDS, Room
from whisperd.daemon.signals import Signals
from whisperd.daemon.systemd import Notifier
from whisperd.daemon.turns import next_job
from whisperd.intake.inbox import Inbox
from whisperd.intake.lease import keep_privilege
from whisperd.protocol import Failed, Finished, Heartbeat, Ready, Released, Work
from whisperd.spool.durable import remedy
from whisperd.spool.layout import Layout
from whisperd.spool.recover import recover
from whisperd.spool.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisperd.core import events
    from whisperd.protocol import FromWorker
    from whisperd.settings.config import Config
    from whisperd.spool.recover import Recovery

RELEASE_SECONDS = 5.0  # a worker that was asked for its job back has so long to answer

_log = logging.getLogger(__name__)


class Supervisor:
    """One daemon over one spool.

    Args:
        config: what to do.
        reload: gives the configuration anew on SIGHUP; raises ConfigError.
        once: end when the inbox is empty and every job has ended.
        emitter: who hears of what happens.
    """

    def __init__(
        self, config: Config, *, reload: Callable[[], Config], emitter: events.Emitter, once: bool = False
    ) -> None:
        self._config = config
        self._reload = reload
        self._once = once
        self._emitter = emitter
        self._layout = Layout(config.root)
        self._store = Store(self._layout)
        self._jobs = Jobs(
            self._store, emitter, max_attempts=config.pool.max_attempts, retry_seconds=config.pool.retry_seconds
        )
        self._jobs.duplicates.configure(skip=config.intake.duplicates == "skip")
        self._pool = Pool(config.pool_options(), config.engine_options(), emitter)
        self._cancels = Cancels(self._store, self._jobs, self._pool, emitter)
        self._chores = Chores(config, self._store, self._jobs, self._pool, emitter)
        self._ready = False
        self._room = Room(self._layout, emitter)
        self._stop_at: float | None = None  # when running jobs are released
        self._kill_at: float | None = None
        self._said: collections.deque[FromWorker | Interrupted] = (
            collections.deque()
        )  # by workers, and not acted on yet

    def run(self) -> int:
        """Work until told to stop; returns the exit status.

        Raises:
            BootError: spool, model or device cannot be used.
            SpoolLocked: another daemon owns the root.
        """
        keep_privilege()  # before any process or thread is started
        self._notifier = Notifier()
        self._layout.create()
        with self._layout.lock(), Signals() as self._signals:
            self._inbox = Inbox(
                self._layout.inbox,
                self._config.intake,
                self._chores.board,
                self._emitter,
                tickets=self._config.tickets.enabled,
            )
            self._claiming = Claiming(self._store, self._jobs, self._inbox, self._room, self._emitter)
            now = time.monotonic()
            self._notifier.extend(self._config.pool.boot_seconds)
            self._pool.tick(now)  # the model loads while the spool is read
            try:
                recovery = self._recovery()
                self._cancels.restore(recovery)
                self._chores.start(self._inbox)
                self._jobs.restore(recovery, now)
                self._watch()
                self._loop()
            finally:
                self._inbox.stop()
                self._chores.close()
                for job_id in self._pool.kill_all():
                    self._jobs.released(job_id, time.monotonic())
                for message in self._said:
                    self._handle(message, time.monotonic())
                self._jobs.close()
        return EXIT_FAILED if self._once and self._jobs.failed else EXIT_OK

    def _recovery(self) -> Recovery:
        try:
            return recover(self._store, max_attempts=self._config.pool.max_attempts)
        except OSError as error:  # not to be taken for damage: nothing is decided on what could not be read
            where = f" ({error.filename})" if error.filename else ""
            raise SpoolError(
                f"the spool in {self._layout.root} cannot be read: {error.strerror}{where}",
                hint="look into the cause; nothing was touched",
            ) from error

    def _watch(self) -> None:
        try:
            self._inbox.start()
        except OSError as error:
            raise BootError(
                f"the inbox cannot be watched: {error.strerror or error}",
                hint="check its permissions, and fs.inotify.max_user_watches and max_user_instances",
            ) from error

    def _loop(self) -> None:
        while True:
            now = time.monotonic()
            times = StepTimes()
            self._hear_signals(now)
            times.mark()
            self._said.extend(self._pool.collect(now))
            more = self._handle_some(now)
            times.mark()
            waitables = []
            if self._stop_at is None:
                self._inbox.tick(now)
                times.mark()
                self._cancels.tick(self._inbox, self._config, now)
                times.mark()
                waitables = self._inbox.waitables()
                more |= self._claiming.tick(self._config, now)
                times.mark()
                more |= self._assign(now)
            else:
                self._wind_down(now)
            times.mark()
            self._pool.tick(now)
            times.mark()
            self._jobs.explain(self._pool.trouble)
            self._jobs.tick(now)
            times.mark()
            self._chores.tick(now, is_stopping=self._stop_at is not None)
            times.mark()
            self._notifier.alive(now)
            status_due = self._notifier.status(self._status(), now)
            times.mark()
            self._emitter.emit(LoopTurned(tuple(times.seconds)))
            if self._is_over():
                return
            wait(
                [self._signals.fileno(), *self._pool.waitables(), *self._chores.waitables(), *waitables],
                timeout=0 if more else self._pause(now, status_due),
            )

    def _pause(self, now: float, status_due: float | None) -> float:
        times = [self._pool.next_at(now), self._jobs.next_at(now), self._chores.next_at(now)]
        if status_due is not None:
            times.append(status_due)
        if self._stop_at is None:
            times.append(self._inbox.next_at(now))
            times.append(now + PAUSE_SECONDS)
        else:
            times.append(now + 0.2)
        if self._notifier.watchdog_seconds is not None:
            times.append(now + self._notifier.watchdog_seconds / 2)
        return max(0.01, min(times) - now)

    def _is_over(self) -> bool:
        if self._stop_at is not None:
            is_comparing = self._jobs.is_comparing and self._kill_at is None
            return self._pool.is_empty() and not (self._said or is_comparing or self._chores.is_busy())
        may_end = self._once and self._ready and len(self._jobs) == 0
        if may_end and self._inbox.is_empty() and self._chores.is_done():
            self._stop(time.monotonic(), grace_seconds=0.0)
        return False

    def _hear_signals(self, now: float) -> None:
        for number in self._signals.drain():
            if number is signal.SIGHUP:
                self._reconfigure()
            elif self._stop_at is not None or number is signal.SIGQUIT:
                self._stop(now, grace_seconds=0.0)  # asked twice: at once
            else:
                self._stop(now, grace_seconds=self._config.pool.stop_grace_seconds)

    def _stop(self, now: float, *, grace_seconds: float) -> None:
        if self._stop_at is None:
            self._notifier.stopping()
            _log.info("stopping: running jobs have %.0f s, then they are released", grace_seconds)
        self._notifier.extend(grace_seconds + RELEASE_SECONDS + 10)
        self._stop_at = min(self._stop_at or now + grace_seconds, now + grace_seconds)
        self._pool.close()

    def _wind_down(self, now: float) -> None:
        """Idle workers end, busy ones finish; after the grace time their jobs are released, and the workers end."""
        assert self._stop_at is not None
        self._pool.close()
        if now >= self._stop_at and self._kill_at is None:
            self._kill_at = now + RELEASE_SECONDS
            self._pool.release_all()
            self._chores.hurry()
        if self._kill_at is not None and now >= self._kill_at:
            for job_id in self._pool.kill_all():
                self._jobs.released(job_id, now)

    def _reconfigure(self) -> None:
        """Apply a new configuration, or refuse it whole."""
        self._notifier.reloading()
        config = self._config
        try:
            config = self._reload()
        except ConfigError as error:
            _log.error("the new configuration is refused, the old one stays: %s", error)
        if config.root != self._config.root:
            _log.error("the new configuration is refused, the old one stays: root cannot change in a running daemon")
        elif config is not self._config:
            self._config = config
            logging.getLogger("whisperd").setLevel(config.log_level.upper())
            self._inbox.configure(config.intake, tickets=config.tickets.enabled)
            self._jobs.duplicates.configure(skip=config.intake.duplicates == "skip")
            self._pool.configure(config.pool_options(), config.engine_options())
            self._chores.configure(config)
            self._jobs.max_attempts, self._jobs.retry_seconds = config.pool.max_attempts, config.pool.retry_seconds
            _log.info("the new configuration is in use")
        if self._ready:
            self._notifier.ready()

    def _handle_some(self, now: float) -> bool:
        """Act on what workers have said; True if some of it has to wait for the next turn: an end takes many writes."""
        share = Slice(LONG_SLICE_SECONDS)
        while self._said:
            self._handle(self._said.popleft(), now)
            if share.is_used_up():
                break
        return bool(self._said)

    def _handle(self, message: FromWorker | Interrupted, now: float) -> None:
        match message:
            case Ready():
                if not self._ready:
                    self._ready = True
                    self._notifier.ready()
                    _log.info("ready: drop recordings into %s", self._layout.inbox)
            case Heartbeat():
                self._jobs.heard(message, now)
            case Finished(job_id, result):
                self._jobs.finished(job_id, result, now)
            case Failed(job_id) | Interrupted(job_id) if self._kill_at is not None:
                self._jobs.released(job_id, now)  # it died because it was told to
            case Failed(job_id, failure):
                self._jobs.attempt_failed(job_id, failure, now)
            case Interrupted(job_id, failure, blame):
                self._jobs.interrupted(job_id, failure, blame, now)
            case Released(job_id):
                self._jobs.released(job_id, now)

    def _assign(self, now: float) -> bool:
        """Give waiting jobs to workers; True if there may be more to give at once."""
        share = Slice(LONG_SLICE_SECONDS)
        if self._jobs.queue:
            self._pool.need()
        while (found := next_job(self._jobs, self._pool, self._config, now)) is not None:
            child, job, spec = found
            try:
                job = self._jobs.start(job, child.number, now)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and self._jobs.forget_gone(job):
                    continue
                self._room.pause(
                    SpoolFull(f"cannot record the start of a job: {error.strerror}", hint=remedy(error)), now
                )
                return False
            directory = self._layout.job_directory(job.id)
            title, link = printable(job.name), original_url(job.place)
            work = Work(job.id, directory, directory / job.original, spec, title, link)
            self._pool.assign(child, work, now, alone=self._jobs.must_be_alone(job))
            if share.is_used_up():
                return True
        return False

    def _status(self) -> str:
        if not self._ready:
            return f"loading the model {self._config.model}"
        waiting = f", {len(self._inbox)} arriving" if len(self._inbox) else ""
        paused = "; not taking files: disk nearly full" if self._room.is_paused else ""
        if trouble := self._pool.trouble:
            paused += f"; no worker can be used: {trouble.message}; it is tried again"
        stopping = "stopping: " if self._stop_at is not None else ""
        return stopping + self._jobs.summary() + waiting + paused
