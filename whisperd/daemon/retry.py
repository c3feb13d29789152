"""Decides whether a job is tried again after a failed attempt; no other module does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whisperd.core.job import Failure, Job

RETRY_SECONDS_MAX = 3600.0
TRANSIENT_CODES = frozenset({"spool_full", "no_resources"})  # nobody's fault but the machine's: costs no attempt


@dataclass(frozen=True, slots=True)
class Retry:
    """The decision to try a job again after a pause; `counted` says whether the attempt counts."""

    delay_seconds: float
    counted: bool


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The decision that a job fails, with the reason."""

    failure: Failure


def decide(
    job: Job, failure: Failure, *, max_attempts: int, retry_seconds: float, interruptions: int = 0
) -> Retry | GiveUp:
    """Decide what happens to a job after a failed attempt, which `job.attempts` already counts.

    `interruptions` are its earlier ends that were nobody's fault: the pause doubles for those too, or a weekend with a
    full disk would be spent decoding the same recordings.
    """
    if failure.code in TRANSIENT_CODES:
        return Retry(min(RETRY_SECONDS_MAX, max(1.0, retry_seconds) * 2**interruptions), counted=False)
    if not failure.retryable or job.attempts >= max_attempts:
        return GiveUp(failure)
    return Retry(min(RETRY_SECONDS_MAX, retry_seconds * 2 ** (job.attempts - 1)), counted=True)
