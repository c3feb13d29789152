"""Whose turn it is: which waiting job goes to which worker, where they want different models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.daemon.orders import spec_of
from whisperd.settings.profiles import models

if TYPE_CHECKING:
    from whisperd.core.job import Job
    from whisperd.core.options import JobSpec
    from whisperd.daemon.child import Child
    from whisperd.daemon.jobs import Jobs
    from whisperd.daemon.pool import Pool
    from whisperd.settings.config import Config


def next_job(jobs: Jobs, pool: Pool, config: Config, now: float) -> tuple[Child, Job, JobSpec] | None:
    """The first job for which there is room in a worker that has its model.

    Jobs for a model that is loaded go before one for which a worker would have to be replaced, but not for long: then that
    one gets the first worker that is idle. A job whose model does not load fails.
    """
    tried = set()
    lacking = []
    for job in jobs.candidates():
        spec = spec_of(config, job)
        if spec.model in tried:
            continue
        engine = config.engine_options(spec.model)
        if failure := pool.broken.get(engine):
            jobs.reject(job, failure, now)
            continue
        tried.add(spec.model)
        if child := pool.free(engine, alone=jobs.must_be_alone(job), fresh=jobs.needs_fresh_worker(job)):
            return child, job, spec
        if jobs.needs_fresh_worker(job):
            pool.renew(engine)
        if jobs.is_overdue(job, now) and not pool.prepare(engine):
            return None  # whoever becomes idle first is replaced
        lacking.append(engine)
        if len(tried) >= len(models(config)):
            break  # nobody further back asks for anything else
    for engine in lacking:
        pool.prepare(engine)
    return None
