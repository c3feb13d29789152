"""What the loop does beside its jobs: it tells others of their ends, shows a page and figures, keeps the spool in bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whisperd.core import heap
from whisperd.daemon.board import Board
from whisperd.daemon.housekeeper import Housekeeper
from whisperd.daemon.reporter import Reporter, vitals
from whisperd.listeners.notifications.dispatch import Dispatcher

if TYPE_CHECKING:
    from whisperd.core import events
    from whisperd.daemon.jobs import Jobs
    from whisperd.daemon.pool import Pool
    from whisperd.intake.inbox import Inbox
    from whisperd.listeners.metrics import Vitals
    from whisperd.settings.config import Config
    from whisperd.spool.store import Store


class Chores:
    """None of them may hold up or harm a job.

    Attributes:
        board: the page; the inbox speaks to it.
    """

    def __init__(self, config: Config, store: Store, jobs: Jobs, pool: Pool, emitter: events.Emitter) -> None:
        self._config = config
        self._layout = store.layout
        self._jobs = jobs
        self._pool = pool
        self._emitter = emitter
        self.board = Board(store, emitter)
        self.board.configure(on=config.pages.index)
        self._notices = Dispatcher(store.layout, config.notices, emitter)
        self._housekeeper = Housekeeper(store.layout, config.retention, emitter)
        self._reporter: Reporter | None = None
        self._trimmer = heap.Trimmer()
        store.announce = self._notices.announce

    def configure(self, config: Config) -> None:
        """Use this configuration from now on; where metrics go does not change."""
        self._notices.configure(config.notices)
        self._housekeeper.configure(config.retention)
        self.board.configure(on=config.pages.index)

    def start(self, inbox: Inbox) -> None:
        """Take up what an earlier daemon left; the spool has been read, and no job been brought to its end yet.

        Raises:
            BootError: the metrics cannot be shown as configured.
        """
        self._inbox = inbox
        self._reporter = Reporter(self._config.metrics, self._layout, self._emitter, self._vitals)
        self._notices.restore()

    def waitables(self) -> list[Any]:
        """What becomes readable when there is something to do."""
        return self._notices.waitables()

    def tick(self, now: float, *, is_stopping: bool) -> None:
        """Do a little of each."""
        self._trimmer.tick()
        self._notices.tick(now, start=not is_stopping)
        self.board.tick(now, self._jobs, len(self._inbox))
        if self._reporter is not None:
            self._reporter.tick(now)
        if not is_stopping:
            self._housekeeper.tick(now)

    def next_at(self, now: float) -> float:
        """Return the time when `tick` has something to do again."""
        reporter_at = self._reporter.next_at() if self._reporter is not None else now
        return min(self._notices.next_at(now), self._housekeeper.next_at(now), self.board.next_at(now), reporter_at)

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
        if self._reporter is not None:
            self.board.close(self._jobs, len(self._inbox))
        if self._reporter is not None:
            self._reporter.close()

    def _vitals(self) -> Vitals:
        return vitals(self._layout, self._jobs, self._pool, self._inbox, notices=len(self._notices))
