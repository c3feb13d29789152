"""How many workers there are, and how long they may take: what the pool needs to know of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whisperd.config import Config


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How many workers, and how long they may take."""

    workers: int
    jobs_per_worker: int
    idle_unload_seconds: float  # 0: never
    heartbeat_seconds: float
    deadline_seconds: float
    deadline_factor: float
    boot_seconds: float
    max_memory: int | None = None  # bytes that a worker may hold after a job

    @classmethod
    def of(cls, config: Config) -> PoolOptions:
        """What the configuration says."""
        pool = config.pool
        return cls(
            pool.workers,
            config.jobs_per_worker(),
            pool.idle_unload_seconds,
            pool.heartbeat_seconds,
            pool.deadline_seconds,
            pool.deadline_factor,
            pool.boot_seconds,
            pool.max_memory,
        )
