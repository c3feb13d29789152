"""How uploads are found and when they count as complete."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IntakeOptions:
    """As in the section `intake` of whisperd.yaml, and `tickets.enabled`."""

    settle_seconds: float
    settle_seconds_proven: float
    empty_seconds: float
    truncated_seconds: float
    rescan_seconds: float
    poll_seconds: float
    done_marker: str
    ignore: tuple[str, ...]
    tickets: bool = True  # whether they are followed

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names that are no uploads, markers included."""
        return (*self.ignore, f"*{self.done_marker}") if self.done_marker else self.ignore

    @property
    def first_look_seconds(self) -> float:
        """After how much quiet a file is looked at for the first time."""
        return min(self.settle_seconds_proven, self.settle_seconds)
