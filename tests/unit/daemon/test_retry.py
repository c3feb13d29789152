"""Retry or fail: one place decides."""

import pytest

from whisperd.core.job import Failure, Job, Signature
from whisperd.daemon.retry import GiveUp, Retry, decide

BROKEN = Failure("engine", "broken", retryable=True)


def job(attempts):
    return Job("1", "a", "a", "original", Signature(0, 0, 0, 0, 0, 0), "", "", attempts=attempts)


def verdict(attempts, failure=BROKEN):
    return decide(job(attempts), failure, max_attempts=3, retry_seconds=30.0)


def test_the_pause_doubles():
    """A machine in trouble is not hammered."""
    assert verdict(1) == Retry(30.0, counted=True)
    assert verdict(2) == Retry(60.0, counted=True)


def test_the_last_attempt_is_the_end():
    """With the reason of that attempt."""
    assert verdict(3) == GiveUp(BROKEN)


def test_what_cannot_get_better_is_not_tried_again():
    """A file that is no recording stays none."""
    failure = Failure("not_media", "no recording")

    assert verdict(1, failure) == GiveUp(failure)


@pytest.mark.parametrize("code", ["spool_full", "no_resources"])
@pytest.mark.parametrize("attempts", [1, 3, 99])
def test_a_machine_at_its_limits_costs_no_attempt(attempts, code):
    """A full disk, or a limit of processes, is nobody's fault, however often it happens."""
    assert verdict(attempts, Failure(code, "no room", retryable=True)) == Retry(30.0, counted=False)


def test_the_pause_has_an_end():
    """An hour at most."""
    assert decide(job(50), BROKEN, max_attempts=100, retry_seconds=30.0) == Retry(3600.0, counted=True)


def test_each_interruption_doubles_the_pause():
    """A weekend with a full disk must not be spent decoding the same recordings."""
    full = Failure("spool_full", "no room", retryable=True)
    pauses = [
        decide(job(1), full, max_attempts=3, retry_seconds=30.0, interruptions=count).delay_seconds
        for count in range(9)
    ]

    assert pauses == [30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0]
