"""The examinations of `whisperd check`: each module looks at one thing and yields findings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one examination: a level (`ok`, `warning` or `error`), what was found, and a command or advice."""

    level: str
    text: str
    hint: str = ""
