"""The health of devices: which are in service, why others are not and when they are tried again, and how fast each is.

A device is out of service while none of its workers can be loaded, or after workers that had finished nothing ended with
different jobs: then it is the device that fails, and the jobs go to others without losing an attempt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from whisperd.core import events

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from whisperd.core.job import Failure, Result

BOOT_DEATHS_MAX = 3  # a worker that dies this often before it is ready will not do better
RESTART_SECONDS_MAX = 60.0
FAILING_SECONDS_MAX = 300.0  # between tries of a worker that cannot load, and of a device that is out of service
DOUBLINGS_MAX = 20
DEATHS_MAX = 10
SPEED_MEMORY = 0.9  # how much of what was measured before a job counts after it


class Blame(Enum):
    """How likely a job is the reason for the end of its worker."""

    NONE = auto()  # the engine had nothing of it
    SUSPECT = auto()  # one of several, or the last of many that the worker had
    DEVICE = (
        auto()
    )  # a fresh worker had this job and no other one, but its device has proven nothing since an end like this
    GUILTY = auto()  # a fresh worker had this job and no other one, on a device that works


@dataclass(slots=True)
class Health:
    """What is known of one device.

    Attributes:
        failures: the slots without a usable worker, and why.
        is_condemned: whether it failed with different jobs, and has no fresh worker since.
        verdict: why it was condemned; None after a finished job.
        rounds: how often it was condemned since it last finished a job.
        retry_at: when a condemned device is tried again.
        is_trusted: whether a job has advanced since a worker ended unexpectedly; after a strike, whether one was finished.
        struck: the jobs with which fresh workers ended since a job was finished.
        deaths: ends of workers in a row, without a finished job in between.
        boot_deaths: the same, of workers that were not ready.
        audio_seconds: of finished jobs, older ones counting less ...
        busy_seconds: ... and for how long the device had jobs.
        busy_since: the part of that which is not counted yet.
    """

    failures: dict[int, Failure] = field(default_factory=dict)
    is_condemned: bool = False
    verdict: Failure | None = None
    rounds: int = 0
    retry_at: float = 0.0
    is_trusted: bool = False
    struck: set[str] = field(default_factory=set)
    deaths: int = 0
    boot_deaths: int = 0
    audio_seconds: float = 0.0
    busy_seconds: float = 0.0
    busy_since: float = 0.0


class Devices:
    """All devices by name; each kind of failure is reported once until the device works again."""

    def __init__(self, emitter: events.Emitter) -> None:
        self._emit = emitter.emit
        self._known: dict[str, Health] = {}
        self._tries: dict[int, int] = {}  # per slot
        self._told: set[tuple[str, str]] = set()
        self._latest: Failure | None = None

    def __len__(self) -> int:
        """Return how many workers cannot be used."""
        return sum(len(health.failures) for health in self._known.values())

    @property
    def latest(self) -> Failure | None:
        """The failure of the worker that was tried last; None if all can be used."""
        return self._latest if len(self) else None

    def of(self, name: str) -> Health:
        """Return what is known of a device."""
        return self._known.setdefault(name, Health())

    def keep(self, names: Iterable[str]) -> None:
        """Forget all devices but these."""
        kept = set(names)
        self._known = {name: health for name, health in self._known.items() if name in kept}
        self._told = {told for told in self._told if told[0] in kept}

    def condemned(self) -> set[str]:
        """Return the devices that failed with different jobs and get none for now."""
        return {name for name, health in self._known.items() if health.is_condemned}

    def try_now(self) -> None:
        """End all pauses, because the cause may have been repaired."""
        self._tries.clear()
        for health in self._known.values():
            health.boot_deaths = 0
            health.rounds = min(1, health.rounds)
            health.retry_at = 0.0

    def load_failed(self, name: str, number: int, failure: Failure, slots: Sequence[int]) -> float:
        """Record that a worker could not be loaded; returns how long to wait before the next attempt.

        Args:
            name: of the device.
            number: the slot of the worker.
            failure: why.
            slots: all slots on the device; it is out of service if none of them can be used.
        """
        health = self.of(name)
        pause = _doubled(self._tries.get(number, 0))
        self._tries[number] = self._tries.get(number, 0) + 1
        health.failures[number] = failure
        self._tell(name, failure, pause, is_out=set(slots) <= set(health.failures))
        return pause

    def ready(self, name: str, number: int) -> None:
        """Record that a worker is ready; a condemned device gets jobs again, which proves it or condemns it anew."""
        health = self.of(name)
        health.boot_deaths = 0
        self._tries.pop(number, None)
        failed = bool(health.failures)
        if health.is_condemned:
            health.is_condemned = False
            health.failures.clear()
        health.failures.pop(number, None)
        if failed and not health.failures and not health.rounds:
            self._works(name)

    def begins(self, name: str, now: float) -> None:
        """Record that a device that had no job gets one."""
        self.of(name).busy_since = now

    def finished(self, name: str, job_id: str, result: Result, now: float) -> set[str]:
        """Record a finished job, which proves that a device works; returns other devices that had failed with this job alone."""
        health = self.of(name)
        if health.is_condemned:  # by the jobs of another one of its workers
            health.is_condemned = False
            health.failures.clear()
        if health.rounds and not health.failures:
            self._works(name)
        health.deaths = health.rounds = 0
        health.verdict = None
        health.is_trusted = True
        health.struck.clear()
        health.audio_seconds = health.audio_seconds * SPEED_MEMORY + result.duration_seconds
        health.busy_seconds = health.busy_seconds * SPEED_MEMORY + now - health.busy_since
        health.busy_since = now
        return {other for other, each in self._known.items() if job_id in each.struck}

    def advanced(self, name: str) -> None:
        """Record that a job advances, which proves that a device works unless it has failed before."""
        health = self.of(name)
        if not health.struck and not health.rounds:
            health.is_trusted = True

    def died(self, name: str) -> float:
        """Record the unexpected end of a worker; returns how long to wait before a fresh one starts."""
        health = self.of(name)
        health.is_trusted = False
        pause = min(RESTART_SECONDS_MAX, float(2**health.deaths - 1))
        health.deaths = min(health.deaths + 1, DEATHS_MAX)
        return pause

    def strike(self, name: str, job_id: str) -> Blame:
        """Judge the end of a fresh worker that had one job: the job is guilty if the device works, or if it failed here before."""
        health = self.of(name)
        is_repeated = health.struck == {job_id}
        health.struck.add(job_id)
        is_trusted, health.is_trusted = health.is_trusted, False
        return Blame.GUILTY if is_trusted or is_repeated else Blame.DEVICE

    def is_doubtful(self, name: str) -> bool:
        """Whether fresh workers ended with different jobs, so that the device is to be condemned."""
        health = self.of(name)
        return bool(health.struck) and (len(health.struck) > 1 or health.rounds > 0)

    def condemn(self, name: str, failure: Failure, slots: Iterable[int], now: float) -> None:
        """Take a device out of service, and plan the next try."""
        health = self.of(name)
        pause = _doubled(health.rounds)
        health.is_condemned, health.retry_at = True, now + pause
        health.rounds += 1
        health.verdict, health.failures = failure, dict.fromkeys(slots, failure)
        self._tell(name, failure, pause, is_out=True)

    def why_out(self, name: str, slots: Iterable[int]) -> Failure | None:
        """Return why no worker on a device can be used, or why it is on trial after that; None while it is in service."""
        health = self.of(name)
        if health.failures and set(slots) <= set(health.failures):
            return next(reversed(health.failures.values()))
        return health.verdict

    def speed(self, name: str) -> float | None:
        """Return the audio seconds per second of a device, all its jobs together; None if it has finished none."""
        health = self.of(name)
        return health.audio_seconds / health.busy_seconds if health.busy_seconds > 0 else None

    def _works(self, name: str) -> None:
        self._told = {told for told in self._told if told[0] != name}
        self._emit(events.WorkersWork(name, all_work=not len(self)))

    def _tell(self, name: str, failure: Failure, pause: float, *, is_out: bool) -> None:
        self._latest = failure
        if (name, failure.message) not in self._told:
            self._told.add((name, failure.message))
            self._emit(events.WorkersFail(failure, pause, name, is_out=is_out))


def _doubled(times: int) -> float:
    return min(FAILING_SECONDS_MAX, 2.0 ** min(DOUBLINGS_MAX, times))
