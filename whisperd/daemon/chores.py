"""What the loop does beside its jobs: it tells others of their ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whisperd.notices.dispatch import Dispatcher

if TYPE_CHECKING:
    from whisperd import events
    from whisperd.config import Config
    from whisperd.spool.store import Store


class Chores:
    """None of them may hold up or harm a job."""

    def __init__(self, config: Config, store: Store, emitter: events.Emitter) -> None:
        self._notices = Dispatcher(store.layout, config.notices, emitter)
        store.announce = self._notices.announce

    def configure(self, config: Config) -> None:
        """Use this configuration from now on."""
        self._notices.configure(config.notices)

    def restore(self) -> None:
        """Take up what an earlier daemon left; the spool has been read, and no job been brought to its end yet."""
        self._notices.restore()

    def waitables(self) -> list[Any]:
        """What becomes readable when there is something to do."""
        return self._notices.waitables()

    def tick(self, now: float, *, is_stopping: bool) -> None:
        """Do a little of each."""
        self._notices.tick(now, start=not is_stopping)

    def next_at(self, now: float) -> float:
        """When `tick` has something to do again."""
        return self._notices.next_at(now)

    def is_done(self) -> bool:
        """Whether there is nothing to wait for before the end of `run --once`."""
        return self._notices.is_idle()

    def is_busy(self) -> bool:
        """Whether something runs that may have until the end of the grace time."""
        return self._notices.is_running()

    def close(self) -> None:
        """End what runs; the next start takes it up."""
        self._notices.close()
