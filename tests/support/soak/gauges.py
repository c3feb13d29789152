"""What a run uses of the machine, looked at once a second, and whether that grows."""

from __future__ import annotations

import collections
import contextlib
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from whisperd.bench.systems import tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Points = Sequence[tuple[float, float]]

WARM_JOBS = 200  # of a process, before its first sample: allocators and caches fill up
LEAST_JOBS = 500  # a line through less says nothing
# What may be added by a thousand jobs, beyond twice the uncertainty of the line. Both are seen to gain
# 1 to 2 MB in their first thousand jobs of mixed lengths, 0.5 MB later; the limit is 3 kB for each job.
LIMITS = {"memory kB": 3000.0, "descriptors": 2.0, "threads": 1.0, "processes": 1.0, "temporary files": 1.0}


@dataclass(frozen=True)
class Line:
    """A straight line through measurements; all per thousand jobs.

    Attributes:
        slope: the growth.
        error: its standard error.
        limit: what is allowed.
    """

    slope: float
    error: float
    limit: float

    @property
    def is_flat(self) -> bool:
        """Not more than allowed, as far as can be told."""
        return self.slope - 2 * self.error <= self.limit


class Gauges:
    """Measurements of one run: of which gauge -> process -> (jobs ended in the run, value)."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self._root = root
        self._scratch = scratch
        self._seen: dict[str, dict[int, list[tuple[float, float]]]] = collections.defaultdict(
            lambda: collections.defaultdict(list)
        )
        self.peaks: dict[str, float] = {}

    def look(self, supervisor: int, workers: Iterable[int], jobs: int) -> None:
        """Measure; a process that ends meanwhile is left out."""
        for role, pids in (("supervisor", [supervisor]), ("worker", workers)):
            for pid in pids:
                with contextlib.suppress(OSError, KeyError):
                    for gauge, value in _process(pid).items():
                        self._note(f"{role}: {gauge}", pid, jobs, value)
        self._note("processes", 0, jobs, len(tree(supervisor)))
        self._note("temporary files", 0, jobs, _count(self._root / ".work/.staging") + _count(self._scratch))

    def _note(self, gauge: str, pid: int, jobs: int, value: float) -> None:
        self._seen[gauge][pid].append((jobs, value))
        self.peaks[gauge] = max(value, self.peaks.get(gauge, 0.0))

    def lines(self) -> dict[str, Line]:
        """Of each gauge the growth that all processes of its kind have in common; gauges seen too short are left out."""
        found = {}
        for gauge, by_process in self._seen.items():
            line = fitted(by_process, LIMITS[gauge.split(": ")[-1]])
            if line is not None:
                found[gauge] = line
        return found


def fitted(by_process: Mapping[int, Points], limit: float) -> Line | None:
    """One slope for all, with a start of its own for each process; None if they have lived through too few jobs."""
    centred, processes, lived = [], 0, 0.0
    for points in by_process.values():
        begin = points[0][0] + WARM_JOBS
        warm = [(jobs / 1000, value) for jobs, value in points if jobs >= begin]
        if len(warm) < 3:
            continue
        processes += 1
        lived += warm[-1][0] - warm[0][0]
        middle = [sum(axis) / len(warm) for axis in zip(*warm, strict=True)]
        centred += [(x - middle[0], y - middle[1]) for x, y in warm]
    spread = sum(x * x for x, _ in centred)
    if lived * 1000 < LEAST_JOBS or not spread:
        return None
    slope = sum(x * y for x, y in centred) / spread
    rest = sum((y - slope * x) ** 2 for x, y in centred)
    return Line(slope, math.sqrt(rest / max(1, len(centred) - processes - 1) / spread), limit)


def _process(pid: int) -> dict[str, float]:
    """proc(5): resident memory, shared pages included."""
    status = dict(re.findall(r"^(\w+):\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
    return {
        "memory kB": float(status["VmRSS"]),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": float(status["Threads"]),
    }


def _count(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))
