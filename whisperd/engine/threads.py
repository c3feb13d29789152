"""How many threads an engine computes with: fewer while other programs use the cores."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

INTERVAL_SECONDS = 0.5  # between two looks at the cores; the kernel counts in units of 0.01 s

_STAT = Path("/proc/stat")
_NICE, _IDLE, _IOWAIT = 1, 3, 4  # columns of a core there, see proc_stat(5)


def limit_threads(threads: int) -> None:
    """Limit the threads of torch in this process, since several workers share the machine."""
    torch.set_num_threads(threads)
    # torch takes a thread's number over when the thread first asks for it: without this question, that of diarization,
    # which sets one for its own threads, would become the number of the engine.
    torch.get_num_threads()
    with suppress(RuntimeError):  # allowed once per process, and only before the first parallel work
        torch.set_num_interop_threads(1)


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """What the cores of this process have done up to a moment, in seconds, all cores together.

    Attributes:
        at: the moment, on any clock.
        own: they worked for this process.
        spare: they were idle, or worked for programs that give way to this one.
    """

    at: float
    own: float
    spare: float


def core_times() -> CoreTimes | None:
    """Measure the cores that this process may use; None where the kernel does not tell."""
    own, at = time.process_time(), time.monotonic()
    cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    # A niced process does not know who of the other niced ones gives way to it.
    columns = (_IDLE, _IOWAIT) if os.getpriority(os.PRIO_PROCESS, 0) > 0 else (_IDLE, _IOWAIT, _NICE)
    try:
        lines = [line.split() for line in _STAT.read_text().splitlines()]
        found = [[int(ticks) for ticks in times] for name, *times in filter(None, lines) if name in cores]
        ticks = sum(times[column] for times in found for column in columns)
    except (OSError, ValueError, IndexError):
        return None
    return CoreTimes(at, own, ticks / os.sysconf("SC_CLK_TCK")) if found else None


class AdaptiveThreads:
    """The number of threads of an engine on the CPU.

    Each product waits for its slowest thread. A thread whose core another program uses makes all others wait for it, and
    costs far more than it brings.

    Args:
        most: the number while nobody else uses the cores.
    """

    def __init__(self, most: int) -> None:
        self.count = self._most = most
        self._last = core_times()

    def adapt(self) -> None:
        """Set the number of threads for the thread that calls, if enough time has passed to know better."""
        if self._most == 1 or self._last is None or time.monotonic() < self._last.at + INTERVAL_SECONDS:
            return
        now = core_times()
        if now is not None:
            count = threads_for(self._most, self._last, now)
            if count != self.count:
                torch.set_num_threads(count)
                self.count = count
        self._last = now


def threads_for(most: int, before: CoreTimes, now: CoreTimes) -> int:
    """Return as many threads as cores were there for this process between two moments, at least 1 and at most `most`."""
    cores = (now.own - before.own + now.spare - before.spare) / (now.at - before.at)
    return min(most, max(1, round(cores)))
