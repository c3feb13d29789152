"""The daemon: assembles its parts, starts and stops them."""

from __future__ import annotations

import logging
import shutil
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd.core import events
from whisperd.core.errors import EXIT_FAILED, EXIT_OK, BootError, SpoolError
from whisperd.daemon.admission import Arrivals, Claiming, EmittingExplainer, Room
from whisperd.daemon.assignment import Answers, Assignment
from whisperd.daemon.cancel import Cancels
from whisperd.daemon.child import WorkerState
from whisperd.daemon.correcting import Correcting
from whisperd.daemon.housekeeper import Housekeeper
from whisperd.daemon.jobs import Jobs
from whisperd.daemon.loop import NEVER, Guarded, Loop, Part, Signals
from whisperd.daemon.pool import Pool
from whisperd.daemon.registry import JobState
from whisperd.daemon.reload import Reload
from whisperd.daemon.systemd import Notifier, ServiceStatus
from whisperd.intake.inbox import Inbox
from whisperd.intake.writers import keep_privilege
from whisperd.listeners.device_report import DeviceReport
from whisperd.listeners.exporter import Exporter
from whisperd.listeners.notifications.dispatch import Dispatcher
from whisperd.listeners.overview import OverviewPage
from whisperd.spool.layout import Layout
from whisperd.spool.recover import recover
from whisperd.spool.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisperd.daemon.child import Child
    from whisperd.protocol import Ready
    from whisperd.settings.config import Config
    from whisperd.spool.recover import Recovery

RELEASE_SECONDS = 5.0  # how long a worker that was asked for its jobs has to answer
LOOK_SECONDS = 0.2  # how often it is seen whether a stop is complete

_log = logging.getLogger(__name__)


class WindDown(Part):
    """Stops the daemon in steps: busy workers may finish, then their jobs are released, then the workers are killed."""

    def __init__(self, pool: Pool, jobs: Jobs, dispatcher: Dispatcher) -> None:
        self._pool = pool
        self._jobs = jobs
        self._dispatcher = dispatcher
        self._release_at: float | None = None
        self._kill_at: float | None = None

    @property
    def has_begun(self) -> bool:
        """Whether the daemon is stopping."""
        return self._release_at is not None

    def is_killing(self) -> bool:
        """Whether workers are being stopped, so that the death of a worker is expected."""
        return self._kill_at is not None

    def is_over(self) -> bool:
        """Whether everything has ended that may end by itself."""
        is_comparing = self._jobs.is_comparing and not self.is_killing()
        return self._pool.is_empty() and not is_comparing and not self._dispatcher.is_running()

    def begin(self, now: float, grace_seconds: float) -> None:
        """Begin to stop; a second call with less grace time stops sooner."""
        self._release_at = min(self._release_at or now + grace_seconds, now + grace_seconds)
        self._dispatcher.wind_down()
        self._pool.wind_down()

    def tick(self, now: float) -> float:
        """End idle workers, and busy ones when the grace time is over."""
        if self._release_at is None:
            return NEVER
        self._pool.wind_down()
        if now >= self._release_at and self._kill_at is None:
            self._kill_at = now + RELEASE_SECONDS
            self._pool.release_all()
            self._dispatcher.close()
        if self._kill_at is not None and now >= self._kill_at:
            for job_id in self._pool.kill_all():
                self._jobs.released(job_id, now)
        return now + LOOK_SECONDS


@dataclass(frozen=True, slots=True)
class Parts:
    """What the supervisor asks of the parts of a running daemon, beside driving them in the loop."""

    inbox: Inbox
    room: Room
    jobs: Jobs
    answers: Answers
    cancels: Cancels
    correcting: Correcting
    reload: Reload
    wind_down: WindDown
    only_before_stop: tuple[Part, ...]
    loop: Loop


class Supervisor:
    """The daemon of one spool.

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
        self._read_config = reload
        self._once = once
        self._emitter = emitter
        self._is_ready = False
        self._layout = Layout(config.root)
        self._dispatcher = Dispatcher(self._layout, config.notices, emitter)
        self._pool = Pool(config.pool_options(), config.engine_options(), emitter)

    def run(self) -> int:
        """Run until told to stop; returns the exit status.

        Raises:
            BootError: spool, model or device cannot be used.
            SpoolLocked: another daemon owns the root.
        """
        keep_privilege()  # before any process or thread is started
        self._notifier = Notifier()
        self._layout.create()
        with self._layout.lock(), Signals(self._hear_signal) as signals:
            store = Store(self._layout, self._dispatcher.announce)
            self._parts = self._put_together(store, signals)
            now = time.monotonic()
            self._notifier.extend(self._config.pool.boot_seconds)
            try:
                self._pool.tick(now)  # the model loads while the spool is read
                recovery = self._recovery(store)
                self._parts.cancels.restore(recovery)
                self._parts.correcting.restore()
                self._dispatcher.restore()
                self._parts.jobs.restore(recovery, now)
                self._watch()
                self._parts.loop.run(self._is_over)
            finally:
                self._parts.loop.close()
        return EXIT_FAILED if self._once and self._parts.jobs.failed else EXIT_OK

    def _put_together(self, store: Store, signals: Signals) -> Parts:
        """Create the parts and their order in the loop.

        Raises:
            BootError: the metrics cannot be shown as configured.
        """
        config, layout, emitter, pool = self._config, self._layout, self._emitter, self._pool
        jobs = Jobs(
            store,
            emitter,
            max_attempts=config.pool.max_attempts,
            retry_seconds=config.pool.retry_seconds,
            trouble=lambda: pool.trouble,
        )
        jobs.configure(config)
        room = Room(layout, emitter)
        explainer = EmittingExplainer(store, emitter)
        inbox = Inbox(layout.inbox, config.intake, explainer, emitter, tickets=config.tickets.enabled)
        wind_down = WindDown(pool, jobs, self._dispatcher)
        answers = Answers(pool, jobs, wind_down.is_killing, self._on_ready)
        reload = Reload(config, self._read_config, self._configure, self._notifier, emitter, place=pool.trial_place)
        cancels = Cancels(config, store, jobs, pool, inbox, emitter=emitter)
        correcting = Correcting(config, store, inbox, emitter)
        admitting: list[Part] = [
            Arrivals(inbox),
            cancels,
            correcting,
            Claiming(config, store, jobs, inbox, room, emitter=emitter),
            Assignment(config, layout, jobs, pool, room),
        ]
        housekeeper = Housekeeper(layout, config, emitter)
        page = OverviewPage(layout, emitter, lambda: jobs.registry.snapshot(arriving=len(inbox)), pool.vitals)
        page.configure(config)
        exporter = Exporter(
            config.metrics,
            layout,
            emitter,
            lambda: vitals(layout, jobs, pool, inbox, notices=len(self._dispatcher)),
        )
        report = DeviceReport(layout, pool.vitals)
        telling: list[Part] = [
            self._dispatcher,
            housekeeper,
            Guarded(page),
            Guarded(exporter),
            Guarded(report),
            ServiceStatus(self._notifier, self._status),
        ]
        loop = Loop([signals, reload, answers, *admitting, wind_down, pool, jobs, *telling], emitter)
        return Parts(
            inbox=inbox,
            room=room,
            jobs=jobs,
            answers=answers,
            cancels=cancels,
            correcting=correcting,
            reload=reload,
            wind_down=wind_down,
            only_before_stop=(*admitting, housekeeper, reload),
            loop=loop,
        )

    def _recovery(self, store: Store) -> Recovery:
        try:
            return recover(store, max_attempts=self._config.pool.max_attempts)
        except OSError as error:  # not to be taken for damage: nothing is decided on what could not be read
            where = f" ({error.filename})" if error.filename else ""
            raise SpoolError(
                f"the spool in {self._layout.root} cannot be read: {error.strerror}{where}",
                hint="look into the cause; nothing was touched",
            ) from error

    def _watch(self) -> None:
        try:
            self._parts.inbox.start()
        except OSError as error:
            raise BootError(
                f"the inbox cannot be watched: {error.strerror or error}",
                hint="check its permissions, and fs.inotify.max_user_watches and max_user_instances",
            ) from error

    def _is_over(self) -> bool:
        if self._parts.wind_down.has_begun:
            return self._parts.wind_down.is_over() and not self._parts.answers.is_behind
        may_end = self._once and self._is_ready and len(self._parts.jobs) == 0 and self._parts.correcting.is_idle
        if may_end and self._parts.inbox.is_empty() and self._dispatcher.is_idle():
            self._stop(time.monotonic(), grace_seconds=0.0)
        return False

    def _hear_signal(self, number: signal.Signals, now: float) -> None:
        has_begun = self._parts.wind_down.has_begun
        if number is signal.SIGHUP:
            if not has_begun:  # else the next start reads the configuration
                self._parts.reload.begin(now)
        elif has_begun or number is signal.SIGQUIT:
            self._stop(now, grace_seconds=0.0)  # asked twice: at once
        else:
            self._stop(now, grace_seconds=self._config.pool.stop_grace_seconds)

    def _stop(self, now: float, *, grace_seconds: float) -> None:
        if not self._parts.wind_down.has_begun:
            self._notifier.stopping()
            _log.info("stopping: running jobs have %.0f s, then they are released", grace_seconds)
            self._parts.reload.give_up()
            self._parts.loop.retire(self._parts.only_before_stop)
        self._notifier.extend(grace_seconds + RELEASE_SECONDS + 10)
        self._parts.wind_down.begin(now, grace_seconds)

    def _configure(self, config: Config, now: float, trial: tuple[Child, Ready] | None) -> None:
        """Use a configuration from now on, with the worker that has loaded its engine."""
        self._config = config
        logging.getLogger("whisperd").setLevel(config.log_level.upper())
        self._parts.loop.configure(config)
        if trial is not None:
            self._pool.adopt(*trial, now)
            self._on_ready()

    def _on_ready(self) -> None:
        """Handle a worker that is ready; the first one makes the daemon ready."""
        if not self._is_ready:
            self._is_ready = True
            self._notifier.ready()
            _log.info("ready: drop recordings into %s", self._layout.inbox)

    def _status(self) -> str:
        if not self._is_ready:
            return f"loading the model {self._config.model}"
        waiting = f", {len(self._parts.inbox)} arriving" if len(self._parts.inbox) else ""
        paused = "; not taking files: disk nearly full" if self._parts.room.is_paused else ""
        if trouble := self._pool.trouble:
            paused += f"; no worker can be used: {trouble.message}; it is tried again"
        else:
            out = [f"; {each.name} is out of service: {each.reason}" for each in self._pool.vitals() if each.reason]
            paused += "".join(out)
        stopping = "stopping: " if self._parts.wind_down.has_begun else ""
        reload = f"; {self._parts.reload.status}" if self._parts.reload.status else ""
        return stopping + self._parts.jobs.summary() + waiting + paused + reload


def vitals(layout: Layout, jobs: Jobs, pool: Pool, inbox: Inbox, *, notices: int) -> events.Vitals:
    """The figures of the whole daemon; cheap enough for every few seconds."""
    disk = shutil.disk_usage(layout.root)
    age = None if inbox.scanned_at is None else time.monotonic() - inbox.scanned_at
    return events.Vitals(
        arriving=len(inbox),
        queued=jobs.waiting,
        running=jobs.registry.count(JobState.RUNNING),
        ending=jobs.registry.count(JobState.ENDING),
        notices=notices,
        free_bytes=disk.free,
        total_bytes=disk.total,
        scanned_at=None if age is None else time.time() - age,
        workers=tuple(
            events.WorkerVitals(child.device, child.resident_bytes(), child.device_bytes)
            for child in pool.children()
            if child.state is not WorkerState.BOOTING
        ),
        workers_failing=len(pool.devices),
        devices=pool.vitals(),
    )
