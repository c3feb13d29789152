"""How much memory a process and all that it started hold at most."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Self

SAMPLE_SECONDS = 0.1


class PeakMemory:
    """Resident memory of a process tree, looked at ten times a second while the `with` statement lasts.

    Pages that several processes share count once for each of them.
    """

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        self.peak_bytes = max(self.peak_bytes, sum(resident_bytes(pid) for pid in tree(self._pid)))


def tree(pid: int) -> list[int]:
    """A process and its descendants (proc(5))."""
    found = [pid]
    for parent in found:  # grows while it is read
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def resident_bytes(pid: int) -> int:
    """Of one process; 0 once it has gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
