"""The bounded set of workers: keeps them alive, notices when one is stuck, and replaces the dead with a pause."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from whisperd import events
from whisperd.daemon.child import Child, State, death_of
from whisperd.errors import BootError
from whisperd.job import Failure
from whisperd.messages import BootFailed, Failed, Finished, Heartbeat, Ready, Released

if TYPE_CHECKING:
    from whisperd.messages import FromWorker, Work
    from whisperd.options import EngineOptions

BOOT_DEATHS_MAX = 3  # a worker that dies this often before it is ready will not do better
RESTART_SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How many workers, and how long they may take."""

    workers: int
    heartbeat_seconds: float
    deadline_seconds: float
    deadline_factor: float
    boot_seconds: float


class Pool:
    """All workers. Whatever happens to one, its job is answered for exactly once: Finished, Failed or Released."""

    def __init__(self, options: PoolOptions, engine: EngineOptions, emitter: events.Emitter) -> None:
        self._options = options
        self._engine = engine
        self._emit = emitter.emit
        self._children: dict[int, Child] = {}
        self._spawn_at: dict[int, float] = {}  # per slot, after a death
        self._deaths = 0  # in a row, without a finished job in between
        self._boot_deaths = 0
        self._closing = False

    def configure(self, options: PoolOptions, engine: EngineOptions) -> None:
        """Use these from now on; workers that loaded something else are replaced once they are idle."""
        self._options, self._engine = options, engine
        self._boot_deaths = 0

    def waitables(self) -> list[Any]:
        """What becomes readable when a worker speaks or ends."""
        return [thing for child in self._children.values() for thing in (child.connection, child.pidfd)]

    def busy(self) -> list[Child]:
        """The workers that have a job."""
        return [child for child in self._children.values() if child.work is not None]

    def idle(self) -> Child | None:
        """A worker that waits for a job."""
        return next(
            (child for child in self._children.values() if child.state is State.IDLE and not self._is_surplus(child)),
            None,
        )

    def is_booting(self) -> bool:
        """Whether a worker is still loading its model."""
        return any(child.state is State.BOOTING for child in self._children.values())

    def assign(self, child: Child, work: Work, now: float) -> None:
        """Give a job to an idle worker; its deadline grows once the length of the audio is known."""
        child.assign(work, now, now + self._options.deadline_seconds)

    def collect(self, now: float) -> list[FromWorker]:
        """All that the workers said, with a `Failed` in the name of each that died with a job.

        Raises:
            BootError: a worker cannot load its model.
        """
        said: list[FromWorker] = []
        for child in tuple(self._children.values()):
            dead = _is_readable(child.pidfd)
            for message in child.receive():
                said.extend(self._heard(child, message, now))
            if dead:
                said.extend(self._buried(child, now))
        return said

    def tick(self, now: float) -> None:
        """Start what is missing, end what is surplus, and climb the ladder for what is stuck.

        Raises:
            BootError: a worker has not loaded its model in time.
        """
        for child in tuple(self._children.values()):
            self._check(child, now)
        if not self._closing:
            for number in range(1, self._options.workers + 1):
                if number not in self._children and now >= self._spawn_at.get(number, 0.0):
                    self._children[number] = Child(number, self._engine, now)

    def next_at(self, now: float) -> float:
        """When `tick` may have something to do, if nobody speaks before."""
        waiting = [at for number, at in self._spawn_at.items() if number not in self._children and not self._closing]
        return min(
            [now + 5.0, *(max(at, now + 0.05) for at in waiting), *(now + 1.0 for child in self.busy() if child.doom)]
        )

    def close(self) -> None:
        """Start no more workers; the idle ones end."""
        self._closing = True
        for child in self._children.values():
            if child.state in {State.IDLE, State.BOOTING}:
                child.quit()

    def release_all(self) -> None:
        """Ask the busy ones to give their jobs back."""
        for child in self.busy():
            child.release()

    def kill_all(self) -> list[str]:
        """End every worker at once; returns the ids of the jobs they had."""
        self._closing = True
        held = [child.work.job_id for child in self.busy() if child.work]
        for child in self._children.values():
            child.kill()
            child.reap()
        self._children.clear()
        return held

    def is_empty(self) -> bool:
        """Whether no worker process is left."""
        return not self._children

    def _heard(self, child: Child, message: FromWorker, now: float) -> list[FromWorker]:
        child.heard_at = now
        match message:
            case BootFailed(failure):
                raise BootError(failure.message, hint=failure.hint)
            case Ready():
                self._boot_deaths = 0
                if child.state is State.BOOTING:
                    child.state = State.IDLE
                self._emit(
                    events.WorkerReady(child.number, child.pid, message.model, message.device, message.load_seconds)
                )
                return [message]
            case _ if child.work is None or message.job_id != child.work.job_id:
                return []  # a late word about a job that was answered for
            case Heartbeat():
                if message.duration_seconds is not None:
                    allowed = self._options.deadline_seconds + self._options.deadline_factor * message.duration_seconds
                    child.deadline = child.started_at + allowed
                return [] if child.doom else [message]
            case Finished() | Failed() | Released():
                doom = child.doom
                if isinstance(message, Finished):
                    self._deaths = 0
                elif doom is not None:
                    message = Failed(message.job_id, doom)
                child.rest()
                return [message]
        raise TypeError(message)

    def _buried(self, child: Child, now: float) -> list[FromWorker]:
        how = child.reap()
        del self._children[child.number]
        expected = child.state is State.ENDING
        pause: float | None = None
        if not expected:
            if child.state is State.BOOTING:
                self._boot_deaths += 1
                if self._boot_deaths >= BOOT_DEATHS_MAX:
                    raise BootError(
                        f"a worker {how} while it loaded the model {child.options.model!r}, {self._boot_deaths} times in a row",
                        hint="if it ran out of memory, use a smaller model; the journal may say more",
                    )
            pause = min(RESTART_SECONDS_MAX, float(2**self._deaths - 1)) if not self._closing else None
            self._deaths = min(self._deaths + 1, 10)
            self._spawn_at[child.number] = now + (pause or 0.0)
        self._emit(events.WorkerEnded(child.number, child.pid, how, expected, pause))
        return [Failed(child.work.job_id, child.doom or death_of(how))] if child.work else []

    def _check(self, child: Child, now: float) -> None:
        if child.state is State.BOOTING and now - child.started_at > self._options.boot_seconds:
            raise BootError(
                f"a worker did not load the model {child.options.model!r} within {self._options.boot_seconds:.0f} s",
                hint="raise pool.boot_seconds, or use a smaller model",
            )
        if child.state is State.IDLE and self._is_surplus(child):
            child.quit()
        if child.state is State.BUSY:
            reason = child.doom or self._overdue(child, now)
            rung = child.climb(reason, now) if reason else None
            if reason and rung:
                self._emit(events.WorkerStopped(child.number, child.pid, rung, reason.message))

    def _overdue(self, child: Child, now: float) -> Failure | None:
        silent = now - child.heard_at
        if silent > self._options.heartbeat_seconds:
            message = f"no sign of progress for {silent:.0f} s"
            return Failure(
                "timeout",
                message,
                "raise pool.heartbeat_seconds if the machine is just slow",
                retryable=True,
                stage="transcribing",
            )
        if now > child.deadline:
            message = f"not done after {now - child.started_at:.0f} s"
            return Failure(
                "timeout",
                message,
                "raise pool.deadline_factor, or use a smaller model",
                retryable=True,
                stage="transcribing",
            )
        return None

    def _is_surplus(self, child: Child) -> bool:
        return child.number > self._options.workers or child.options != self._engine


def _is_readable(fd: int) -> bool:
    """Whether a pidfd says that its process has ended (pidfd_open(2))."""
    return bool(wait([fd], timeout=0))
