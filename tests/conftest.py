"""Fixtures that every kind of test shares."""

from __future__ import annotations

import time

import pytest


@pytest.fixture
def wait_until():
    """Wait for a condition, with a deadline that fails loudly; the only way an integration test may pass time."""

    def wait(predicate, *, within_seconds=30.0, what="the condition"):
        deadline = time.monotonic() + within_seconds
        while not (value := predicate()):
            if time.monotonic() > deadline:
                pytest.fail(f"{what} did not come true within {within_seconds} s")
            time.sleep(0.02)
        return value

    return wait
