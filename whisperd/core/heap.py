"""Returns free memory to the system (malloc_trim)."""

from __future__ import annotations

import ctypes
import time

TRIM_SECONDS = 60.0  # trimmed pages that are needed again cost page faults, about 10 ms for a model's activations

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # malloc_trim(3); only glibc has it


class Trimmer:
    """Returns the memory that malloc keeps for later to the system, at most once a minute.

    Jobs of mixed sizes leave holes that glibc keeps, more with every thread: over thousands of jobs this looks like a leak
    and takes as much memory.
    """

    def __init__(self) -> None:
        self._trimmed_at = time.monotonic()

    def tick(self) -> None:
        """Trim if a minute has passed; call it at the end of a job, or as often as you like."""
        now = time.monotonic()
        if _malloc_trim is not None and now - self._trimmed_at >= TRIM_SECONDS:
            self._trimmed_at = now
            _malloc_trim(0)
