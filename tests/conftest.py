"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
import signal
import time

import pytest

# As whisperd does for its workers: torch's threads, which share cores with other processes here, must not spin for each
# other. libgomp reads it when torch is loaded, which no plugin does before this file.
os.environ.setdefault("GOMP_SPINCOUNT", "4000")


def pytest_configure() -> None:
    """Take Ctrl-C as usual: a shell that starts the tests in the background has it ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
