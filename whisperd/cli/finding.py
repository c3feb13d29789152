"""What `whisperd check` says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: `ok`, `warning` or `error`, and what mends it."""

    level: str
    text: str
    hint: str = ""
