"""Measures the highest resident memory of a process and its descendants."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Self

SAMPLE_SECONDS = 0.1


class PeakMemory:
    """Samples the resident memory of a process tree ten times a second while the `with` statement lasts.

    Pages that several processes share count once for each of them.
    """

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        self.peak_bytes = max(self.peak_bytes, sum(resident_bytes(pid) for pid in tree(self._pid)))


def tree(pid: int) -> list[int]:
    """List the ids of a process and its descendants (proc(5))."""
    found = [pid]
    for parent in found:  # grows while it is read
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def resident_bytes(pid: int) -> int:
    """The resident memory of one process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
