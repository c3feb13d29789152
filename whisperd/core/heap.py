"""Free memory, given back to the system."""

from __future__ import annotations

import ctypes
import time

TRIM_SECONDS = 60.0  # seldom: what is in use by turns must be faulted in again, some 10 ms for a model's activations

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # malloc_trim(3); only glibc has it


class Trimmer:
    """Gives back what malloc keeps for later, once a minute at most.

    Jobs of mixed sizes leave holes that glibc keeps, a little more with every thread that has had a turn: over thousands
    of jobs that looks like a leak, and takes as much.
    """

    def __init__(self) -> None:
        self._trimmed_at = time.monotonic()

    def tick(self) -> None:
        """To be called at the end of a job, or as often as one likes."""
        now = time.monotonic()
        if _malloc_trim is not None and now - self._trimmed_at >= TRIM_SECONDS:
            self._trimmed_at = now
            _malloc_trim(0)
