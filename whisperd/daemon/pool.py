"""The pool of workers: starts them, stops those that hang, and replaces those that died after a pause."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from whisperd.core import events
from whisperd.core.errors import BootError, NoResources
from whisperd.core.job import Failure
from whisperd.daemon.child import Child, WorkerState, death_of
from whisperd.daemon.loop import Part
from whisperd.protocol import (
    BootFailed,
    EngineFailed,
    Failed,
    Finished,
    Heartbeat,
    ProtocolError,
    Ready,
    Release,
    Released,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whisperd.core.options import EngineOptions
    from whisperd.protocol import FromWorker, Work
    from whisperd.settings.config import Config
    from whisperd.settings.sections import PoolOptions

BOOT_DEATHS_MAX = 3  # a worker that dies this often before it is ready will not do better
RESTART_SECONDS_MAX = 60.0
FAILING_SECONDS_MAX = 300.0  # between tries of a worker that cannot load
DOUBLINGS_MAX = 20
ENDING_SECONDS = 30.0  # time for a worker that was told to end, or has closed the pipe, to free its memory


class Blame(Enum):
    """How likely a job is the reason for the end of its worker."""

    NONE = auto()  # the engine had nothing of it
    SUSPECT = auto()  # one of several, or the last of many that the worker had
    GUILTY = auto()  # a fresh worker had this job and no other one


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The message for each job of a worker that ended; only a guilty one loses an attempt."""

    job_id: str
    failure: Failure
    blame: Blame


class Failing:
    """The slots of the pool without a usable worker, and why; each kind of failure is reported once until all work again."""

    def __init__(self, emitter: events.Emitter) -> None:
        self._emit = emitter.emit
        self._failures: dict[int, Failure] = {}
        self._tries: dict[int, int] = {}
        self._told: set[str] = set()

    def __len__(self) -> int:
        """Return how many workers cannot be used."""
        return len(self._failures)

    @property
    def latest(self) -> Failure | None:
        """The failure of the worker that was tried last."""
        return next(reversed(self._failures.values()), None)

    def add(self, number: int, failure: Failure) -> float:
        """Record that a worker could not be used; returns how long to wait before the next attempt."""
        pause = min(FAILING_SECONDS_MAX, 2.0 ** min(DOUBLINGS_MAX, self._tries.get(number, 0)))
        self._tries[number] = self._tries.get(number, 0) + 1
        self._failures.pop(number, None)
        self._failures[number] = failure
        if failure.message not in self._told:
            self._told.add(failure.message)
            self._emit(events.WorkersFail(failure, pause))
        return pause

    def works(self, number: int) -> None:
        """Record that a worker is ready."""
        self._tries.pop(number, None)
        if self._failures.pop(number, None) is not None and not self._failures:
            self._told.clear()
            self._emit(events.WorkersWork())

    def try_now(self) -> None:
        """End all pauses, because the cause may have been repaired."""
        self._tries.clear()


class Pool(Part):
    """The pool of all workers; for each job it returns exactly one of Finished, Failed, Released and Interrupted."""

    def __init__(self, options: PoolOptions, engine: EngineOptions, emitter: events.Emitter) -> None:
        self._options = options
        self._engine = engine
        self._emit = emitter.emit
        self._children: dict[int, Child] = {}
        self._spawn_at: dict[int, float] = {}  # per slot, after a death
        self._deaths = 0  # in a row, without a finished job in between
        self._boot_deaths = 0
        self._was_ready = False  # from then on a worker that cannot load ends nothing
        self.failing = Failing(emitter)
        self._closing = False
        self._unloaded: set[int] = set()
        self._wanted: dict[int, EngineOptions] = {}  # per slot, where it is not the usual engine
        self.broken: dict[EngineOptions, Failure] = {}  # other engines that cannot be loaded, and why

    def configure(self, config: Config) -> None:
        """Use these options from now on; workers that loaded something else are replaced when they are idle."""
        self._options, self._engine = config.pool_options(), config.engine_options()
        engine = self._engine
        self._boot_deaths = 0
        self.broken.clear()
        self.failing.try_now()
        self._spawn_at.clear()  # whoever asks for a reload may have repaired the cause
        # a worker with another model of the same kind stays until its slot is needed
        self._wanted = {
            number: wanted
            for number, wanted in self._wanted.items()
            if replace(wanted, model=engine.model) == engine != wanted
        }

    def adopt(self, child: Child, ready: Ready, now: float) -> None:
        """Add a worker that is ready; the one that it replaces, if possible an idle one, ends when it is idle."""
        busy = {child.number: len(child.jobs) for child in self._children.values()}
        number = min(range(1, self._options.workers + 1), key=lambda number: busy.get(number, -1))
        if (old := self._children.pop(number, None)) is not None:
            old.number = max(self._options.workers, *self._children, 0) + 1  # which makes it surplus
            self._children[old.number] = old
            if old.state is WorkerState.BOOTING:
                old.state = WorkerState.ENDING
                old.kill()
        self._wanted.pop(number, None)
        self._unloaded.discard(number)
        child.number = number
        self._children[number] = child
        self._heard(child, ready, now)

    def waitables(self) -> list[Any]:
        """Return the descriptors that become readable when a worker sends a message or ends."""
        ends = [child.connection for child in self._children.values() if not child.connection.is_closed]
        return [*ends, *(child.pidfd for child in self._children.values())]

    def children(self) -> list[Child]:
        """All workers."""
        return list(self._children.values())

    def busy(self) -> list[Child]:
        """The workers that have jobs."""
        return [child for child in self._children.values() if child.jobs]

    @property
    def trouble(self) -> Failure | None:
        """The reason why no job can run now; None if a worker is ready or starting."""
        works = any(child.state is WorkerState.READY for child in self._children.values())
        return None if works else self.failing.latest

    @property
    def retry_at(self) -> float | None:
        """The time when a failed worker is tried again; None if one is being tried, or none has failed."""
        waiting = [at for number, at in self._spawn_at.items() if number not in self._children]
        return min(waiting, default=None) if len(self.failing) else None

    def free(self, engine: EngineOptions, *, alone: bool = False, fresh: bool = False) -> Child | None:
        """Find the worker with this engine that has the fewest jobs; None if it cannot take another one.

        `alone`: one that has no job now; `fresh`: one that has never had any.
        """
        able = [
            child
            for child in self._children.values()
            if child.state is WorkerState.READY and child.options == engine and not self._is_surplus(child)
            if not child.connection.is_closed
            if not (child.is_reserved or (alone and child.jobs) or (fresh and child.jobs_given))
        ]
        child = min(able, key=lambda child: len(child.jobs), default=None)
        return (
            child
            if child is not None
            and len(child.jobs) < self._options.jobs_per_worker
            and not child.dooms
            and not child.connection.is_behind
            else None
        )

    def replaceable(self, engine: EngineOptions) -> Child | None:
        """Find an idle worker with another engine."""
        idle = (child for child in self._children.values() if child.state is WorkerState.READY and not child.jobs)
        return next((child for child in idle if child.options != engine and not self._is_surplus(child)), None)

    def is_coming(self, engine: EngineOptions) -> bool:
        """Whether a worker is loading this engine."""
        for number in range(1, self._options.workers + 1):
            child = self._children.get(number)
            has_it = (
                child is not None and child.state is WorkerState.READY and child.options == engine and not child.worn
            )
            if self._engine_of(number) == engine and not has_it:
                return True
        return False

    def prepare(self, engine: EngineOptions) -> None:
        """Start a worker with this engine in place of an idle one."""
        if not self.is_coming(engine) and (child := self.replaceable(engine)) is not None:
            self._wanted[child.number] = engine  # which makes it surplus: `tick` replaces it

    def used(self, engine: EngineOptions) -> Child | None:
        """Find an idle worker with this engine that has had jobs; None while a fresh one is starting."""
        mine = [child for child in self._children.values() if child.options == engine]
        if not all(child.state is WorkerState.READY and not child.worn for child in mine):
            return None
        return next((child for child in mine if not child.jobs), None)

    def renew(self, engine: EngineOptions) -> None:
        """Replace an idle worker with this engine that has had jobs by a fresh one."""
        if (child := self.used(engine)) is not None:
            child.worn = True

    def _engine_of(self, number: int) -> EngineOptions:
        return self._wanted.get(number, self._engine)

    def need(self) -> None:
        """Start workers again that ended because they were idle, since a job waits."""
        self._unloaded.clear()

    def assign(self, child: Child, work: Work, now: float, *, alone: bool = False) -> None:
        """Give a job to a worker; if it must be alone, the worker gets no other one.

        Its deadline grows once the length of the audio is known.
        """
        child.is_reserved = alone
        child.assign(work, now, self._options.deadline_seconds)

    def collect(self, now: float) -> list[FromWorker | Interrupted]:
        """Return the messages of all workers, and a message for each job of a worker that died or whose engine failed.

        Raises:
            BootError: a worker cannot load its model, and none has ever been ready.
        """
        said: list[FromWorker | Interrupted] = []
        for child in tuple(self._children.values()):
            dead = child.has_ended()
            try:
                for message in child.receive(now, has_ended=dead):
                    said.extend(self._heard(child, message, now))
            except ProtocolError as error:
                child.distrust(f"broke the protocol ({error})")
            if dead:
                said.extend(self._buried(child, now))
        return said

    def tick(self, now: float) -> float:
        """Start missing workers, end surplus ones, and stop those that hang; returns the time of the next call.

        Raises:
            BootError: a worker has not loaded its model in time, or cannot be started, and none has ever been ready.
        """
        for child in tuple(self._children.values()):
            self._check(child, now)
        if not self._closing:
            for number in range(1, self._options.workers + 1):
                missing = number not in self._children and number not in self._unloaded
                if missing and now >= self._spawn_at.get(number, 0.0):
                    self._spawn(number, now)
        return self.next_at(now)

    def _spawn(self, number: int, now: float) -> None:
        try:
            self._children[number] = Child(number, self._engine_of(number), now)
        except OSError as error:  # a limit of processes or descriptors: like a worker that died at once
            failure = Failure.of(NoResources("a worker", error))
            self._boot_deaths += 1
            if self._was_ready:
                pause = self.failing.add(number, failure)
            elif self._boot_deaths >= BOOT_DEATHS_MAX:
                raise BootError(failure.message, hint=failure.hint) from error
            else:
                pause = self._pause()
            self._spawn_at[number] = now + pause
            self._emit(events.WorkerEnded(number, 0, f"could not be started: {error.strerror}", False, pause))

    def _pause(self) -> float:
        """Return how long to wait after another death of a worker."""
        pause = min(RESTART_SECONDS_MAX, float(2**self._deaths - 1))
        self._deaths = min(self._deaths + 1, 10)
        return pause

    def next_at(self, now: float) -> float:
        """Return the time when `tick` may have something to do, unless a message comes before."""
        waiting = [at for number, at in self._spawn_at.items() if number not in self._children and not self._closing]
        return min(
            [
                now + 5.0,
                *(max(at, now + 0.05) for at in waiting),
                *(now + 1.0 for child in self.busy() if child.dooms),
                *(now + 0.5 for child in self._children.values() if child.connection.is_behind),
            ]
        )

    def close(self) -> None:
        """Kill every worker."""
        self.kill_all()

    def wind_down(self) -> None:
        """Start no more workers, and end the idle ones."""
        self._closing = True
        for child in self._children.values():
            if child.state is not WorkerState.ENDING and not child.jobs:
                child.quit()

    def cancel(self, job_id: str, reason: Failure, now: float) -> None:
        """Take one job from its worker: a worker with other jobs is asked to give it back, one without them is stopped if it does not."""
        for child in self.busy():
            if job_id in child.jobs and len(child.jobs) == 1:
                child.doom([job_id], reason, now)
            elif job_id in child.jobs:
                child.send(Release(job_id))

    def release_all(self) -> None:
        """Ask all busy workers to give their jobs back."""
        for child in self.busy():
            child.release()

    def kill_all(self) -> list[str]:
        """Kill every worker; returns the ids of their jobs."""
        self._closing = True
        held = [job_id for child in self.busy() for job_id in child.jobs]
        for child in self._children.values():
            child.kill()
            child.reap()
        self._children.clear()
        return held

    def is_empty(self) -> bool:
        """Whether no worker process is left."""
        return not self._children

    def _heard(self, child: Child, message: FromWorker, now: float) -> Sequence[FromWorker | Interrupted]:
        if child.state is WorkerState.RETIRED:
            return []
        child.heard_at = now
        _check_sense(child, message)
        match message:
            case BootFailed(failure):
                self._give_up(child, failure.message, failure.hint, now)
                return []
            case Ready():
                self._boot_deaths = 0
                self._was_ready = True
                self.failing.works(child.number)
                child.device = message.device
                if child.state is WorkerState.BOOTING:
                    child.state, child.free_since = WorkerState.READY, now
                self._emit(
                    events.WorkerReady(child.number, child.pid, message.model, message.device, message.load_seconds)
                )
                return [message]
            case EngineFailed(failure, job_ids):
                return self._retire(child, failure, job_ids, now)
            case Heartbeat():
                child.device_bytes = message.device_bytes or child.device_bytes
                if message.duration_seconds is not None:
                    pace = self._options.deadline_factor * self._options.jobs_per_worker
                    longest = child.jobs[message.job_id].work.spec.media.max_duration_seconds
                    duration = min(message.duration_seconds, longest)
                    child.allow(message.job_id, self._options.deadline_seconds + pace * duration)
                return [] if child.jobs[message.job_id].doom is not None else [message]
            case Finished() | Failed() | Released():
                doom = child.jobs[message.job_id].doom
                if isinstance(message, Finished):
                    self._deaths = 0
                elif doom is not None:
                    message = Failed(message.job_id, doom)
                if isinstance(message, Failed) and message.failure.code == "out_of_memory":
                    child.worn = True  # what it holds may be fragmented, or leaked: the next attempt gets a fresh one
                self._weigh(child)
                child.drop(message.job_id, now)
                return [message]
        raise TypeError(message)

    def _retire(
        self, child: Child, failure: Failure, job_ids: tuple[str, ...], now: float
    ) -> list[Failed | Interrupted]:
        """End a worker whose engine failed; its jobs are tried again, and a job is guilty only if the worker never had another one."""
        child.state = WorkerState.RETIRED
        child.kill()  # what is broken may take minutes to end by itself
        pause = self._pause()
        if child.number <= self._options.workers:
            self._spawn_at[child.number] = now + pause
        self._emit(events.WorkerRetired(child.number, child.pid, failure, len(child.jobs)))
        batch = child.jobs.keys() & set(job_ids) or child.jobs.keys()
        suspicion = Blame.GUILTY if child.jobs_given == 1 else Blame.SUSPECT
        said: list[Failed | Interrupted] = []
        for job_id, job in tuple(child.jobs.items()):
            if job.doom is not None:
                said.append(Failed(job_id, job.doom))
            else:
                said.append(Interrupted(job_id, failure, suspicion if job_id in batch else Blame.NONE))
            child.drop(job_id, now)
        return said

    def _weigh(self, child: Child) -> None:
        """Replace a worker that holds too much memory when it has no job, before the kernel kills it during one."""
        most = self._options.max_memory
        if most is not None and not child.worn and (held := child.resident_bytes()) > most:
            child.worn = True
            self._emit(events.WorkerWorn(child.number, child.pid, held, most))

    def _buried(self, child: Child, now: float) -> list[Failed | Interrupted]:
        how = child.reap()
        del self._children[child.number]
        expected = child.state is WorkerState.ENDING
        if child.state is WorkerState.RETIRED:
            how = "has ended"
        elif not expected:
            if child.state is WorkerState.BOOTING:
                self._boot_deaths += 1
                if child.options not in self.broken and self._boot_deaths >= BOOT_DEATHS_MAX:
                    self._give_up(
                        child,
                        f"a worker {how} while it loaded the model {child.options.model!r}, more than {BOOT_DEATHS_MAX - 1} times in a row",
                        "if it ran out of memory, use a smaller model; the journal may say more",
                        now,
                    )
            if child.state is not WorkerState.ENDING and child.number <= self._options.workers:
                self._spawn_at[child.number] = now + self._pause()
        is_replaced = not expected and not self._closing and child.number <= self._options.workers
        pause = self._spawn_at.get(child.number, now) - now if is_replaced else None
        self._emit(events.WorkerEnded(child.number, child.pid, how, expected, pause))
        death = death_of(how, is_distrusted=bool(child.killed_because))
        guilty = child.dooms or child.jobs
        said: list[Failed | Interrupted] = []
        for job_id, job in child.jobs.items():
            failure = job.doom or death
            is_alone = job_id in guilty and len(guilty) == 1
            said.append(Failed(job_id, failure) if is_alone else Interrupted(job_id, failure, Blame.SUSPECT))
        return said

    def _check(self, child: Child, now: float) -> None:
        if child.must_end_at is None:
            if child.connection.is_closed or child.state is WorkerState.ENDING:
                child.must_end_at = now + ENDING_SECONDS
        elif now >= child.must_end_at and not child.killed_because:
            child.distrust("did not end when it should have")
        if child.state is WorkerState.BOOTING and now - child.started_at > self._options.boot_seconds:
            self._give_up(
                child,
                f"a worker did not load the model {child.options.model!r} within {self._options.boot_seconds:.0f} s",
                "raise pool.boot_seconds, or use a smaller model",
                now,
            )
            child.kill()
        if child.state is not WorkerState.READY:
            return
        if not child.jobs:
            idle = self._options.idle_unload_seconds
            if self._is_surplus(child):
                child.quit()
            elif idle and now - child.free_since >= idle:
                self._unloaded.add(child.number)
                self._wanted.pop(child.number, None)
                child.quit()
            return
        child.doom_the_late(self._options.heartbeat_seconds, now)
        if rung := child.climb(now):
            reason = next(iter(child.dooms.values()))
            self._emit(events.WorkerStopped(child.number, child.pid, rung, reason.message))

    def _give_up(self, child: Child, message: str, hint: str, now: float) -> None:
        """Handle an engine that cannot be loaded: that of the configuration is tried again, jobs of other ones fail.

        Raises:
            BootError: it is the usual one, and none has ever been ready.
        """
        if child.options == self._engine:
            if not self._was_ready:
                raise BootError(message, hint=hint)
            failure = Failure("boot", message, hint, retryable=True)
            self._spawn_at[child.number] = now + self.failing.add(child.number, failure)
            child.state = WorkerState.ENDING
            return
        hint = f"{hint}; then `systemctl reload whisperd`, and retry"
        self.broken[child.options] = Failure("model", message, hint, stage="transcribing")
        self._wanted.pop(child.number, None)
        self._boot_deaths = 0
        child.state = WorkerState.ENDING

    def _is_surplus(self, child: Child) -> bool:
        return child.worn or child.number > self._options.workers or child.options != self._engine_of(child.number)


def _check_sense(child: Child, message: FromWorker) -> None:
    """Check that a message makes sense in the state of its worker.

    Raises:
        ProtocolError: it does not: the worker is broken, or has been taken over.
    """
    kind = type(message).__name__
    if isinstance(message, Ready | BootFailed):
        if child.device:
            raise ProtocolError(f"{kind}: it was ready before")
    elif isinstance(message, EngineFailed):
        if not child.device:
            raise ProtocolError(f"{kind}: it has no engine yet")
    elif (job := child.jobs.get(message.job_id)) is None:
        raise ProtocolError(f"{kind}: it does not have that job")
    elif isinstance(message, Released) and not job.is_asked_back:
        raise ProtocolError(f"{kind}: nobody asked for that job")
    elif isinstance(message, Finished) and message.result.outputs != job.work.spec.output.formats:
        raise ProtocolError(f"{kind}: the result has other formats than were asked for")
