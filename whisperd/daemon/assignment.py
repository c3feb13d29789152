"""Which waiting job goes to which worker, where they want different models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from whisperd.core.display import printable
from whisperd.core.errors import SpoolFull
from whisperd.core.job import original_url
from whisperd.core.slices import LONG_SLICE_SECONDS, Slice
from whisperd.daemon.admission import ask
from whisperd.daemon.registry import JobState
from whisperd.intake.ticket import Tickets
from whisperd.messages import Work
from whisperd.settings.profiles import models
from whisperd.spool.durable import remedy

if TYPE_CHECKING:
    from whisperd.core.job import Failure, Job
    from whisperd.core.options import EngineOptions, JobSpec
    from whisperd.daemon.admission import Room
    from whisperd.daemon.child import Child
    from whisperd.daemon.jobs import Jobs
    from whisperd.daemon.pool import Pool
    from whisperd.daemon.registry import Entry, Registry
    from whisperd.settings.config import Config
    from whisperd.spool.layout import Layout

OVERTAKEN_SECONDS = 60.0  # for how long others go before a job for whose model a worker would have to be replaced


@dataclass(frozen=True, slots=True)
class Start:
    """Give a job to a worker that has room for it."""

    child: Child
    job: Job
    spec: JobSpec


@dataclass(frozen=True, slots=True)
class Reject:
    """Fail a job whose model does not load."""

    job: Job
    failure: Failure


@dataclass(frozen=True, slots=True)
class Overtake:
    """Others go before a job from now on: no worker has its model."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Prepare:
    """Let a worker load an engine, in place of an idle one."""

    engine: EngineOptions


@dataclass(frozen=True, slots=True)
class Renew:
    """Replace a worker that has had jobs by a fresh one: a job must not meet what others left."""

    engine: EngineOptions


Step = Start | Reject | Overtake | Prepare | Renew


def next_step(registry: Registry, pool: Pool, config: Config, now: float) -> Step | None:
    """What is to be done next so that waiting jobs get workers; None: nothing for now.

    Jobs for a model that is loaded go before one for which a worker would have to be replaced, but not for long: then that
    one gets the first worker that is idle.
    """
    tried = set()
    lacking = []
    for entry in registry.candidates():
        spec = spec_of(config, entry.job)
        if spec.model in tried:
            continue
        engine = config.engine_options(spec.model)
        if failure := pool.broken.get(engine):
            return Reject(entry.job, failure)
        tried.add(spec.model)
        if child := pool.free(engine, fresh=entry.needs_fresh_worker):
            return Start(child, entry.job, spec)
        if entry.needs_fresh_worker and pool.used(engine) is not None:
            return Renew(engine)
        if entry.overtaken_since is None:
            return Overtake(entry)
        lacking.append(engine)
        is_overdue = now - entry.overtaken_since >= OVERTAKEN_SECONDS
        if is_overdue and not pool.is_coming(engine):
            break  # the first worker that becomes idle is replaced, and until then nobody starts
        if len(tried) >= len(models(config)):
            break  # nobody further back asks for anything else
    preparable = (engine for engine in lacking if not pool.is_coming(engine) and pool.replaceable(engine))
    return next(map(Prepare, preparable), None)


def spec_of(config: Config, job: Job) -> JobSpec:
    """The spec of a job, within today's limits; a job whose record has none gets what it would get today."""
    spec = job.spec or ask(config, job.name, Tickets(config.root / "inbox")).spec
    return replace(spec, output=spec.output.evolve(formats=job.formats)).within(config.media)


class Assignment:
    """Takes one step after the other, as far as a slice goes."""

    def __init__(self, layout: Layout, jobs: Jobs, pool: Pool, room: Room) -> None:
        self._layout = layout
        self._jobs = jobs
        self._pool = pool
        self._room = room

    def tick(self, config: Config, now: float) -> bool:
        """Give waiting jobs to workers; True if there may be more to give at once."""
        share = Slice(LONG_SLICE_SECONDS)
        if self._jobs.registry.count(JobState.QUEUED):
            self._pool.need()
        while (step := next_step(self._jobs.registry, self._pool, config, now)) is not None:
            match step:
                case Start(child, job, spec):
                    if not self._start(child, job, spec, now):
                        return False
                case Reject(job, failure):
                    self._jobs.reject(job, failure, now)
                case Overtake(entry):
                    entry.overtaken_since = now
                case Prepare(engine):
                    self._pool.prepare(engine)
                case Renew(engine):
                    self._pool.renew(engine)
            if share.is_used_up():
                return True
        return False

    def _start(self, child: Child, job: Job, spec: JobSpec, now: float) -> bool:
        """Give a job to a worker; False if nothing can be started for now."""
        try:
            job = self._jobs.start(job, child.number, now)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and self._jobs.forget_gone(job):
                return True
            self._room.pause(SpoolFull(f"cannot record the start of a job: {error.strerror}", hint=remedy(error)), now)
            return False
        directory = self._layout.job_directory(job.id)
        title, link = printable(job.name), original_url(job.place)
        self._pool.assign(child, Work(job.id, directory, directory / job.original, spec, title, link), now)
        return True
