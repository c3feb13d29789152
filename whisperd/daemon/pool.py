"""The pool of workers: starts them, stops those that hang, and replaces those that died after a pause."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from whisperd.core import events
from whisperd.core.devices import AUTO
from whisperd.core.errors import BootError, NoResources
from whisperd.core.job import Failure
from whisperd.daemon.arrangement import Arrangement
from whisperd.daemon.child import Child, WorkerState, death_of
from whisperd.daemon.devices import BOOT_DEATHS_MAX, Blame, Devices
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
    from collections.abc import Collection, Sequence

    from whisperd.core.devices import Place
    from whisperd.core.options import EngineOptions
    from whisperd.protocol import FromWorker, Work
    from whisperd.settings.config import Config
    from whisperd.settings.sections import PoolOptions

DEVICE_HINT = "look at the device: dmesg and nvidia-smi may say more; a restart of the machine may help"
LONG_SPEED_SHARE = 0.5  # of the fastest device's speed, which one needs to be given long recordings
SLOTS_MIN = 4  # with fewer, a slot kept free for short jobs would cost too much
ENDING_SECONDS = 30.0  # time for a worker that was told to end, or has closed the pipe, to free its memory


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The message for each job of a worker that ended; only a guilty one loses an attempt.

    `device` is that of the worker if it may be the reason.
    """

    job_id: str
    failure: Failure
    blame: Blame
    device: str = ""


class Pool(Part):
    """The pool of all workers; for each job it returns exactly one of Finished, Failed, Released and Interrupted.

    Args:
        options: how many workers, and their limits.
        engine: what they load, and on which devices.
        emitter: told what happens to workers and devices.
        is_daemon: False for one person who waits: GPUs are not listed, and a job that ends a fresh worker is guilty at once.
    """

    def __init__(
        self, options: PoolOptions, engine: EngineOptions, emitter: events.Emitter, *, is_daemon: bool = True
    ) -> None:
        self._is_daemon = is_daemon
        self._options = options
        self._engine = engine
        self._emit = emitter.emit
        self._children: dict[int, Child] = {}
        self._spawn_at: dict[int, float] = {}  # per slot, after a death
        self._was_ready = False  # from then on a worker that cannot load ends nothing
        self._closing = False
        self._unloaded: set[int] = set()
        self._wanted: dict[int, EngineOptions] = {}  # per slot, where it is not the usual engine
        self.arrangement = Arrangement(options, engine, lists=is_daemon)
        self.devices = Devices(emitter)
        self.broken: dict[EngineOptions, Failure] = {}  # other engines that no device can load, and why
        self._unfit: dict[EngineOptions, set[str]] = {}  # the devices that cannot

    def configure(self, config: Config) -> None:
        """Use these options from now on; workers that loaded something else, or elsewhere, are replaced when they are idle."""
        self._options, self._engine = config.pool_options(), config.engine_options()
        engine = self._engine
        self.arrangement.configure(self._options, engine)
        self.broken.clear()
        self._unfit.clear()
        self.devices.keep(self.arrangement.device_names())
        self.devices.try_now()
        self._spawn_at.clear()  # whoever asks for a reload may have repaired the cause
        # a worker with another model of the same kind stays until its slot is needed
        self._wanted = {
            number: wanted
            for number, wanted in self._wanted.items()
            if replace(wanted, model=engine.model) == engine != wanted
        }

    def trial_place(self, config: Config) -> Place:
        """Return the place of a worker that tries the engine of a new configuration."""
        return self.arrangement.first(config.pool_options(), config.engine_options(), self.devices.condemned())

    def adopt(self, child: Child, ready: Ready, now: float) -> None:
        """Add a worker that is ready; the one that it replaces, if possible an idle one, ends when it is idle."""
        busy = {child.number: len(child.jobs) for child in self._children.values()}
        places = self.arrangement.by_number
        here = [number for number, place in places.items() if place == child.place] or list(places)
        number = min(here, key=lambda number: busy.get(number, -1), default=1)
        if (old := self._children.pop(number, None)) is not None:
            old.number = max(*places, *self._children, 0) + 1  # which makes it surplus
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
        return [*ends, *(child.pidfd for child in self._children.values()), *self.arrangement.waitables()]

    def children(self) -> list[Child]:
        """All workers."""
        return list(self._children.values())

    def busy(self) -> list[Child]:
        """The workers that have jobs."""
        return [child for child in self._children.values() if child.jobs]

    @property
    def trouble(self) -> Failure | None:
        """The reason why no job can run now; None if a worker is ready or starting."""
        out = self.devices.condemned()
        ready = (child for child in self._children.values() if child.state is WorkerState.READY)
        return None if any(child.place.device.name not in out for child in ready) else self.devices.latest

    def vitals(self) -> tuple[events.DeviceVitals, ...]:
        """Return the state of each device."""
        return tuple(self._vitals(name) for name in self.arrangement.device_names())

    def _vitals(self, name: str) -> events.DeviceVitals:
        slots = self.arrangement.numbers(name)
        health, here = self.devices.of(name), [child for number, child in self._children.items() if number in slots]
        own = self.arrangement.by_number[slots[0]].device
        shown = next((child.device for child in here if child.device), name) if name == AUTO else name
        reason, retry_at = "", None
        if (failure := self.devices.why_out(name, slots)) is not None:
            reason = failure.message
            waiting = [self._spawn_at.get(number, 0.0) for number in slots]
            retry_at = None if here else max(health.retry_at if health.is_condemned else 0.0, min(waiting))
        return events.DeviceVitals(shown, own.model, len(slots), reason, retry_at, self.devices.speed(name))

    @property
    def retry_at(self) -> float | None:
        """The time when a failed worker is tried again; None if one is being tried, or none has failed."""
        waiting = [at for number, at in self._spawn_at.items() if number not in self._children]
        return min(waiting, default=None) if len(self.devices) else None

    def free(
        self,
        engine: EngineOptions,
        *,
        alone: bool = False,
        fresh: bool = False,
        avoid: Collection[str] = (),
        is_long: bool = False,
    ) -> Child | None:
        """Find the worker with this engine that is likely to be done first; None if none can take another job.

        Args:
            engine: what it must have loaded.
            alone: it must have no job now.
            fresh: it must never have had one.
            avoid: devices that are used only where no other one is in service.
            is_long: it must not be much slower than the fastest that can take a job, and a slot stays free for short jobs.
        """
        able = [
            child
            for child in self._usable(engine, avoid)
            if child.state is WorkerState.READY and not self._is_surplus(child)
            if not child.connection.is_closed and not child.connection.is_behind
            if not (child.is_reserved or child.dooms or (alone and child.jobs) or (fresh and child.jobs_given))
            if len(child.jobs) < self._options.jobs_per_worker
        ]
        if not able or (is_long and self._is_last_slot(engine)):
            return None
        known = [speed for child in able if (speed := self.devices.speed(child.place.device.name)) is not None]
        best = max(known, default=1.0)
        speeds = {child.number: self.devices.speed(child.place.device.name) or best for child in able}
        if is_long:
            able = [child for child in able if speeds[child.number] >= LONG_SPEED_SHARE * best]
        return min(able, key=lambda child: (len(child.jobs) + 1) / speeds[child.number])

    def _is_last_slot(self, engine: EngineOptions) -> bool:
        """Whether only one more job can start now, so that a short one would wait for a long one that took its place."""
        ready = [
            child for child in self._usable(engine) if child.state is WorkerState.READY and not self._is_surplus(child)
        ]
        slots = len(ready) * self._options.jobs_per_worker
        return slots >= SLOTS_MIN and slots - sum(len(child.jobs) for child in ready) <= 1

    def _usable(self, engine: EngineOptions, avoid: Collection[str] = ()) -> list[Child]:
        """List the workers with this engine on devices in service, if possible not on those to avoid."""
        out = self.devices.condemned()
        names = [name for name in self.arrangement.device_names() if name not in out]
        wanted = [name for name in names if name not in avoid] or names
        return [
            child for child in self._children.values() if child.options == engine and child.place.device.name in wanted
        ]

    def replaceable(self, engine: EngineOptions) -> Child | None:
        """Find an idle worker with another engine, on a device that is not known to be unable to load this one."""
        unfit = self._unfit.get(engine, set())
        idle = (child for child in self._children.values() if child.state is WorkerState.READY and not child.jobs)
        other = (child for child in idle if child.options != engine and not self._is_surplus(child))
        return next((child for child in other if child.place.device.name not in unfit), None)

    def is_coming(self, engine: EngineOptions) -> bool:
        """Whether a worker is loading this engine, or is about to."""
        for number, place in self.arrangement.by_number.items():
            child = self._children.get(number)
            has_it = (
                child is not None and child.state is WorkerState.READY and child.options == engine and not child.worn
            )
            is_failing = child is None and number in self.devices.of(place.device.name).failures
            if self._engine_of(number) == engine and not has_it and not is_failing:
                return True
        return False

    def prepare(self, engine: EngineOptions) -> None:
        """Start a worker with this engine in place of an idle one."""
        if not self.is_coming(engine) and (child := self.replaceable(engine)) is not None:
            self._wanted[child.number] = engine  # which makes it surplus: `tick` replaces it

    def used(self, engine: EngineOptions, avoid: Collection[str] = ()) -> Child | None:
        """Find an idle worker with this engine that has had jobs, as `free`; None while a fresh one is starting."""
        mine = self._usable(engine, avoid)
        if not all(child.state is WorkerState.READY and not child.worn for child in mine):
            return None
        return next((child for child in mine if not child.jobs), None)

    def renew(self, engine: EngineOptions, avoid: Collection[str] = ()) -> None:
        """Replace an idle worker with this engine that has had jobs by a fresh one."""
        if (child := self.used(engine, avoid)) is not None:
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
        name = child.place.device.name
        if not any(each.jobs for each in self._children.values() if each.place.device.name == name):
            self.devices.begins(name, now)
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
        if self.arrangement.tick(now):
            self.devices.keep(self.arrangement.device_names())
        for child in tuple(self._children.values()):
            self._check(child, now)
        if not self._closing:
            for number, place in self.arrangement.by_number.items():
                missing = number not in self._children and number not in self._unloaded
                if missing and now >= self._spawn_at.get(number, 0.0) and self._may_try(number, place, now):
                    self._spawn(number, place, now)
        return self.next_at(now)

    def _may_try(self, number: int, place: Place, now: float) -> bool:
        """Whether a worker may be started; on a condemned device one is, after a pause, and the others wait for it."""
        health = self.devices.of(place.device.name)
        first = min(self.arrangement.numbers(place.device.name))
        return not health.is_condemned or (number == first and now >= health.retry_at)

    def _spawn(self, number: int, place: Place, now: float) -> None:
        name = place.device.name
        try:
            self._children[number] = Child(number, self._engine_of(number), now, place)
        except OSError as error:  # a limit of processes or descriptors: like a worker that died at once
            failure = Failure.of(NoResources("a worker", error))
            health = self.devices.of(name)
            health.boot_deaths += 1
            if self._was_ready:
                pause = self.devices.load_failed(name, number, failure, self.arrangement.numbers(name))
            elif health.boot_deaths >= BOOT_DEATHS_MAX:
                raise BootError(failure.message, hint=failure.hint) from error
            else:
                pause = self.devices.died(name)
            self._spawn_at[number] = now + pause
            self._emit(events.WorkerEnded(number, 0, f"could not be started: {error.strerror}", False, pause))

    def next_at(self, now: float) -> float:
        """Return the time when `tick` may have something to do, unless a message comes before."""
        waiting = [at for number, at in self._spawn_at.items() if number not in self._children and not self._closing]
        return min(
            [
                now + 5.0,
                self.arrangement.next_at(),
                *(max(at, now + 0.05) for at in waiting),
                *(now + 1.0 for child in self.busy() if child.dooms),
                *(now + 0.5 for child in self._children.values() if child.connection.is_behind),
            ]
        )

    def close(self) -> None:
        """Kill every worker, and whoever lists the devices."""
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
        self.arrangement.close()
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
                self._was_ready = True
                self.devices.ready(child.place.device.name, child.number)
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
                if message.processed_seconds > 0:
                    self.devices.advanced(child.place.device.name)
                if message.duration_seconds is not None:
                    pace = self._options.deadline_factor * self._options.jobs_per_worker
                    longest = child.jobs[message.job_id].work.spec.media.max_duration_seconds
                    duration = min(message.duration_seconds, longest)
                    child.allow(message.job_id, self._options.deadline_seconds + pace * duration)
                return [] if child.jobs[message.job_id].doom is not None else [message]
            case Finished() | Failed() | Released():
                doom = child.jobs[message.job_id].doom
                if isinstance(message, Finished):
                    self._proven(child, message, now)
                elif doom is not None:
                    message = Failed(message.job_id, doom)
                self._weigh(child)
                child.drop(message.job_id, now)
                if isinstance(message, Failed) and message.failure.code == "out_of_memory":
                    child.worn = True  # what it holds may be fragmented, or leaked: the next attempt gets a fresh one
                    if doom is None and child.jobs_given == 1:
                        return [self._judged(child, message.job_id, message.failure, now)]
                return [message]
        raise TypeError(message)

    def _retire(
        self, child: Child, failure: Failure, job_ids: tuple[str, ...], now: float
    ) -> list[Failed | Interrupted]:
        """End a worker whose engine failed; its jobs are tried again, and a job is guilty only if the worker never had another one."""
        child.state = WorkerState.RETIRED
        child.kill()  # what is broken may take minutes to end by itself
        self._emit(events.WorkerRetired(child.number, child.pid, failure, len(child.jobs)))
        batch = child.jobs.keys() & set(job_ids) or child.jobs.keys()
        said: list[Failed | Interrupted] = []
        for job_id, job in tuple(child.jobs.items()):
            if job.doom is not None:
                said.append(Failed(job_id, job.doom))
            elif job_id in batch and child.jobs_given == 1:
                judged = self._judged(child, job_id, failure, now)
                said.append(Interrupted(job_id, failure, Blame.GUILTY) if isinstance(judged, Failed) else judged)
            else:
                said.append(Interrupted(job_id, failure, Blame.SUSPECT if job_id in batch else Blame.NONE))
            child.drop(job_id, now)
        pause = self.devices.died(child.place.device.name)
        if child.number in self.arrangement.by_number:
            self._spawn_at[child.number] = now + pause
        return said

    def _judged(self, child: Child, job_id: str, failure: Failure, now: float) -> Failed | Interrupted:
        """Decide whether a job or the device is the reason why a fresh worker that had only this job failed."""
        name = child.place.device.name
        blame = self.devices.strike(name, job_id) if self._is_daemon else Blame.GUILTY
        if self._is_daemon and self.devices.is_doubtful(name):
            self._condemn(name, failure, now)
        return Failed(job_id, failure) if blame is Blame.GUILTY else Interrupted(job_id, failure, blame, name)

    def _condemn(self, name: str, failure: Failure, now: float) -> None:
        """Take a device out of service; its idle workers end, because a fresh one shall try it."""
        self.devices.condemn(name, failure, self.arrangement.numbers(name), now)
        for child in self._children.values():
            if child.place.device.name == name:
                child.worn = True

    def _proven(self, child: Child, message: Finished, now: float) -> None:
        """Take note of a finished job: its device works, and others that failed with the same job do not."""
        name = child.place.device.name
        for other in self.devices.finished(name, message.job_id, message.result, now) - {name}:
            if not self.devices.of(other).is_condemned:
                failure = Failure("engine", f"workers on {other} end with jobs that others finish", DEVICE_HINT)
                self._condemn(other, failure, now)

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
        elif child.state is WorkerState.BOOTING:
            health = self.devices.of(child.place.device.name)
            health.boot_deaths += 1
            if child.options not in self.broken and health.boot_deaths >= BOOT_DEATHS_MAX:
                self._give_up(
                    child,
                    f"a worker {how} while it loaded the model {child.options.model!r}, more than {BOOT_DEATHS_MAX - 1} times in a row",
                    "if it ran out of memory, use a smaller model; the journal may say more",
                    now,
                )
        death = death_of(how, is_distrusted=bool(child.killed_because))
        guilty = child.dooms or child.jobs
        is_first = child.jobs_given == 1 and not child.dooms and not child.killed_because
        said: list[Failed | Interrupted] = []
        for job_id, job in child.jobs.items():
            failure = job.doom or death
            is_alone = job_id in guilty and len(guilty) == 1
            if is_alone and is_first:
                said.append(self._judged(child, job_id, failure, now))
            else:
                said.append(Failed(job_id, failure) if is_alone else Interrupted(job_id, failure, Blame.SUSPECT))
        has_slot = child.number in self.arrangement.by_number
        if not expected and child.state not in {WorkerState.RETIRED, WorkerState.ENDING}:
            pause = self.devices.died(child.place.device.name)
            if has_slot:
                self._spawn_at[child.number] = now + pause
        is_replaced = has_slot and not expected and not self._closing
        restart = self._spawn_at.get(child.number, now) - now if is_replaced else None
        self._emit(events.WorkerEnded(child.number, child.pid, how, expected, restart))
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
            BootError: it is the usual one, none has ever been ready, and no other device may still be.
        """
        if child.options == self._engine:
            name = child.place.device.name
            others = [each for each in self.arrangement.device_names() if each != name]
            if not self._was_ready and all(self.devices.of(each).failures for each in others):
                raise BootError(message, hint=hint)
            failure = Failure("boot", message, hint, retryable=True)
            pause = self.devices.load_failed(name, child.number, failure, self.arrangement.numbers(name))
            self._spawn_at[child.number] = now + pause
            child.state = WorkerState.ENDING
            return
        unfit = self._unfit.setdefault(child.options, set())
        unfit.add(child.place.device.name)
        names = self.arrangement.device_names()
        if not {name for name in names if self.devices.why_out(name, self.arrangement.numbers(name)) is None} - unfit:
            hint = f"{hint}; then `systemctl reload whisperd`, and retry"
            self.broken[child.options] = Failure("model", message, hint, stage="transcribing")
        self._wanted.pop(child.number, None)
        self.devices.of(child.place.device.name).boot_deaths = 0
        child.state = WorkerState.ENDING

    def _is_surplus(self, child: Child) -> bool:
        place = self.arrangement.by_number.get(child.number)
        return child.worn or child.place != place or child.options != self._engine_of(child.number)


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
