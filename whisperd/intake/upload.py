"""What the inbox hands out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whisperd.core.job import Failure, Signature


@dataclass(frozen=True, slots=True)
class Upload:
    """A complete upload, ready to be claimed; with a `failure`, to be claimed and failed."""

    name: str
    signature: Signature
    first_seen: float
    failure: Failure | None = None
