"""Free memory that malloc keeps."""

import itertools
import re
from pathlib import Path

import pytest

from whisperd.core import heap

pytestmark = pytest.mark.skipif(heap._malloc_trim is None, reason="the C library is not glibc")


def resident_kb():
    """Of this process, proc(5)."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.fixture
def clock(monkeypatch):
    """A minute passes with each look."""
    minutes = itertools.count(step=heap.TRIM_SECONDS)
    monkeypatch.setattr(heap.time, "monotonic", lambda: next(minutes))


@pytest.mark.usefixtures("clock")
def test_holes_between_what_is_in_use_go_back():
    """One block in a hundred stays: malloc alone would keep the rest."""
    trimmer = heap.Trimmer()
    blocks = [bytes(2000) for _ in range(50_000)]
    kept = blocks[::100]
    del blocks
    before = resident_kb()

    trimmer.tick()

    assert before - resident_kb() > 50_000
    assert len(kept) == 500


def test_it_happens_once_a_minute_at_most(monkeypatch):
    """It costs milliseconds, and what is in use by turns must be faulted in again."""
    calls = []
    monkeypatch.setattr(heap, "_malloc_trim", calls.append)
    now = iter([0.0, heap.TRIM_SECONDS - 1, heap.TRIM_SECONDS, heap.TRIM_SECONDS + 1, 2 * heap.TRIM_SECONDS])
    monkeypatch.setattr(heap.time, "monotonic", lambda: next(now))
    trimmer = heap.Trimmer()

    for _ in range(4):
        trimmer.tick()

    assert len(calls) == 2
