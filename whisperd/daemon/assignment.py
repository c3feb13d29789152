"""Assigns waiting jobs to workers, which may have different models, and processes the answers of workers."""

from __future__ import annotations

import collections
import functools
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from whisperd.core.display import printable
from whisperd.core.errors import SpoolFull
from whisperd.core.job import original_url
from whisperd.core.slices import LONG_SLICE_SECONDS, Slice
from whisperd.daemon.admission import ask
from whisperd.daemon.loop import AT_ONCE, NEVER, Part
from whisperd.daemon.pool import Interrupted
from whisperd.daemon.registry import JobState
from whisperd.intake.ticket import Tickets
from whisperd.protocol import Failed, Finished, Heartbeat, Ready, Released, Work
from whisperd.settings.profiles import models
from whisperd.spool import names
from whisperd.spool.durable import remedy

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisperd.core.job import Failure, Job
    from whisperd.core.options import EngineOptions, JobSpec
    from whisperd.daemon.admission import Room
    from whisperd.daemon.child import Child
    from whisperd.daemon.jobs import Jobs
    from whisperd.daemon.pool import Pool
    from whisperd.daemon.registry import Entry, Registry
    from whisperd.protocol import FromWorker
    from whisperd.settings.config import Config
    from whisperd.spool.layout import Layout

LONG_SECONDS = 1800.0  # a recording that is at least this long, as far as its size tells, is a long one
# Bytes of a second, typically: PCM of recorders and studios, lossless, video; speech in MP3, AAC or Opus.
BYTES_PER_SECOND = {
    **dict.fromkeys((".wav", ".aif", ".aiff", ".au", ".w64", ".rf64"), 100_000),
    **dict.fromkeys((".flac", ".wv", ".ape"), 50_000),
    **dict.fromkeys((".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts"), 250_000),
}
OTHER_BYTES_PER_SECOND = 12_000
OVERTAKEN_SECONDS = 60.0  # for how long others go before a job for whose model a worker would have to be replaced


@dataclass(frozen=True, slots=True)
class Start:
    """The next step: give a job to a worker that has room for it."""

    child: Child
    job: Job
    spec: JobSpec
    is_alone: bool = False  # the worker gets no other one beside it


@dataclass(frozen=True, slots=True)
class Reject:
    """The next step: fail a job whose model cannot be loaded."""

    job: Job
    failure: Failure


@dataclass(frozen=True, slots=True)
class Overtake:
    """The next step: let other jobs overtake one, because no worker has its model."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Prepare:
    """The next step: start a worker with another engine in place of an idle one."""

    engine: EngineOptions


@dataclass(frozen=True, slots=True)
class Renew:
    """The next step: replace a worker, if possible on a device that is not to be avoided, by a fresh one for a job that needs it."""

    engine: EngineOptions
    avoid: tuple[str, ...] = ()


Step = Start | Reject | Overtake | Prepare | Renew


def next_step(registry: Registry, pool: Pool, config: Config, now: float) -> Step | None:
    """Decide the next step by which a waiting job gets a worker; None if there is nothing to do.

    Jobs for a model that is loaded go before one for which a worker would have to be replaced, but not for long: then that
    one gets the first worker that is idle. A short recording goes before a long one that would take the last free slot.
    """
    tried: set[str] = set()
    held_back: set[str] = set()  # models of which no long recording can start
    lacking = []
    for entry in registry.candidates():
        model = (entry.job.spec or spec_of(config, entry.job)).model
        long = is_long(entry.job)
        if model in tried or (long and model in held_back):
            continue
        spec = spec_of(config, entry.job)
        engine = config.engine_options(spec.model)
        if failure := pool.broken.get(engine):
            return Reject(entry.job, failure)
        avoid = tuple(entry.failed_on)
        find = functools.partial(
            pool.free, engine, alone=entry.must_be_alone, fresh=entry.needs_fresh_worker, avoid=avoid
        )
        if child := find(is_long=long):
            return Start(child, entry.job, spec, entry.must_be_alone)
        if long and find(is_long=False):
            held_back.add(model)
            continue
        tried.add(model)
        if entry.needs_fresh_worker and pool.used(engine, avoid) is not None:
            return Renew(engine, avoid)
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


def is_long(job: Job) -> bool:
    """Whether a recording is a long one, by its size: its length is only known once ffmpeg has read it."""
    rate = BYTES_PER_SECOND.get(os.path.splitext(job.name)[1].lower(), OTHER_BYTES_PER_SECOND)
    return job.signature.size >= LONG_SECONDS * rate


def spec_of(config: Config, job: Job) -> JobSpec:
    """Return the spec of a job with the current limits; a job whose record has none gets the current options."""
    spec = job.spec or ask(config, job.name, Tickets(config.root / "inbox")).spec
    return replace(spec, output=spec.output.evolve(formats=job.formats)).within(config.media)


class Assignment(Part):
    """The part of the loop that assigns waiting jobs to workers."""

    def __init__(self, config: Config, layout: Layout, jobs: Jobs, pool: Pool, room: Room) -> None:
        self._config = config
        self._layout = layout
        self._jobs = jobs
        self._pool = pool
        self._room = room

    def configure(self, config: Config) -> None:
        """Use this configuration for jobs that start from now on."""
        self._config = config

    def tick(self, now: float) -> float:
        """Give waiting jobs to workers; returns the time of the next call."""
        share = Slice(LONG_SLICE_SECONDS)
        if self._jobs.registry.count(JobState.QUEUED):
            self._pool.need()
        while (step := next_step(self._jobs.registry, self._pool, self._config, now)) is not None:
            match step:
                case Start():
                    if not self._start(step, now):
                        return NEVER  # claiming looks when there is room again
                case Reject(job, failure):
                    self._jobs.reject(job, failure, now)
                case Overtake(entry):
                    entry.overtaken_since = now
                case Prepare(engine):
                    self._pool.prepare(engine)
                case Renew(engine, avoid):
                    self._pool.renew(engine, avoid)
            if share.is_used_up():
                return AT_ONCE
        return NEVER

    def _start(self, step: Start, now: float) -> bool:
        """Start a job on a worker; False if nothing can be started for now."""
        job = step.job
        try:
            job = self._jobs.start(job, step.child.number, now)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and self._jobs.forget_gone(job):
                return True
            self._room.pause(SpoolFull(f"cannot record the start of a job: {error.strerror}", hint=remedy(error)), now)
            return False
        directory = self._layout.job_directory(job.id)
        title, link = printable(job.name), original_url(job.place)
        folders, _ = names.split(job.name)
        work = Work(job.id, directory, directory / job.original, step.spec, title, link, self._layout.inbox, folders)
        self._pool.assign(step.child, work, now, alone=step.is_alone)
        return True


class Answers(Part):
    """The part of the loop that processes the messages of workers, in order.

    Args:
        pool: the workers.
        jobs: told what has become of each job.
        is_killing: whether workers are being ended with the jobs that they have, so that it is no job's fault.
        on_ready: called when a worker is ready.
    """

    def __init__(self, pool: Pool, jobs: Jobs, is_killing: Callable[[], bool], on_ready: Callable[[], None]) -> None:
        self._pool = pool
        self._jobs = jobs
        self._is_killing = is_killing
        self._on_ready = on_ready
        self._said: collections.deque[FromWorker | Interrupted] = collections.deque()

    @property
    def is_behind(self) -> bool:
        """Whether messages of workers are not processed yet."""
        return bool(self._said)

    def tick(self, now: float) -> float:
        """Process messages of workers for a slice of time, since the end of a job takes many writes."""
        self._said.extend(self._pool.collect(now))
        share = Slice(LONG_SLICE_SECONDS)
        while self._said:
            self._handle(self._said.popleft(), now)
            if share.is_used_up():
                break
        return AT_ONCE if self._said else NEVER

    def close(self) -> None:
        """Process the remaining messages, end the workers and release their jobs."""
        now = time.monotonic()
        while self._said:
            self._handle(self._said.popleft(), now)
        for job_id in self._pool.kill_all():
            self._jobs.released(job_id, now)

    def _handle(self, message: FromWorker | Interrupted, now: float) -> None:
        match message:
            case Ready():
                self._on_ready()
            case Heartbeat():
                self._jobs.heard(message, now)
            case Finished(job_id, result):
                self._jobs.finished(job_id, result, now)
            case Failed(job_id) | Interrupted(job_id) if self._is_killing():
                self._jobs.released(job_id, now)  # it died because it was told to
            case Failed(job_id, failure):
                self._jobs.attempt_failed(job_id, failure, now)
            case Interrupted(job_id, failure, blame, device):
                self._jobs.interrupted(job_id, failure, blame, now, device)
            case Released(job_id):
                self._jobs.released(job_id, now)
