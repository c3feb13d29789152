"""What the loop does beside its jobs: it tells others of their ends, shows a page and figures, keeps the spool in bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whisperd.core import heap
from whisperd.daemon.housekeeper import Housekeeper
from whisperd.daemon.snapshot import vitals
from whisperd.listeners.exporter import Exporter
from whisperd.listeners.notifications.dispatch import Dispatcher
from whisperd.listeners.overview import OverviewPage

if TYPE_CHECKING:
    from whisperd.core import events
    from whisperd.core.snapshots import JobsNow, Vitals
    from whisperd.daemon.jobs import Jobs
    from whisperd.daemon.pool import Pool
    from whisperd.intake.inbox import Inbox
    from whisperd.settings.config import Config
    from whisperd.spool.store import Store


class Chores:
    """None of them may hold up or harm a job."""

    def __init__(self, config: Config, store: Store, jobs: Jobs, pool: Pool, emitter: events.Emitter) -> None:
        self._config = config
        self._layout = store.layout
        self._jobs = jobs
        self._pool = pool
        self._emitter = emitter
        self._inbox: Inbox | None = None
        self._page = OverviewPage(store.layout, emitter, self._jobs_now)
        self._page.configure(config)
        self._notices = Dispatcher(store.layout, config.notices, emitter)
        self._housekeeper = Housekeeper(store.layout, config.retention, emitter)
        self._exporter: Exporter | None = None
        self._trimmer = heap.Trimmer()
        store.announce = self._notices.announce

    def configure(self, config: Config) -> None:
        """Use this configuration from now on; where metrics go does not change."""
        self._notices.configure(config.notices)
        self._housekeeper.configure(config.retention)
        self._page.configure(config)

    def start(self, inbox: Inbox) -> None:
        """Take up what an earlier daemon left; the spool has been read, and no job been brought to its end yet.

        Raises:
            BootError: the metrics cannot be shown as configured.
        """
        self._inbox = inbox
        self._exporter = Exporter(self._config.metrics, self._layout, self._emitter, self._vitals)
        self._notices.restore()

    def waitables(self) -> list[Any]:
        """What becomes readable when there is something to do."""
        return self._notices.waitables()

    def tick(self, now: float, *, is_stopping: bool) -> float:
        """Do a little of each; returns when to come again."""
        self._trimmer.tick()
        self._notices.tick(now, start=not is_stopping)
        if not is_stopping:
            self._housekeeper.tick(now)
        page_at = self._page.tick(now)
        exporter_at = now if self._exporter is None else self._exporter.tick(now)
        return min(self._notices.next_at(now), self._housekeeper.next_at(now), page_at, exporter_at)

    def is_done(self) -> bool:
        """Whether there is nothing to wait for before the end of `run --once`."""
        return self._notices.is_idle()

    def is_busy(self) -> bool:
        """Whether something runs that may have until the end of the grace time."""
        return self._notices.is_running()

    def hurry(self) -> None:
        """The grace time is over: end what runs; the next start takes it up."""
        self._notices.close()

    def close(self) -> None:
        """End everything; the jobs have been given back."""
        self._notices.close()
        if self._exporter is not None:
            self._page.close()
            self._exporter.close()

    def _jobs_now(self) -> JobsNow:
        return self._jobs.registry.snapshot(arriving=0 if self._inbox is None else len(self._inbox))

    def _vitals(self) -> Vitals:
        assert self._inbox is not None
        return vitals(self._layout, self._jobs, self._pool, self._inbox, notices=len(self._notices))
