"""Compares systems: runs each over the same recordings, round after round, and computes speed, errors and memory."""

from __future__ import annotations

import collections
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from whisperd.bench import word_errors
from whisperd.core.errors import WhisperdError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from whisperd.bench.recordings import ReferenceRecording
    from whisperd.bench.systems import System, SystemRun


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several figures, with the least and the most."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Compute it from one value or more."""
        return cls(min(values), statistics.median(values), max(values))


@dataclass(frozen=True, slots=True)
class Figures:
    """The results of one system over all rounds.

    Attributes:
        speed: audio seconds per second, of each round.
        ahead: how many times faster whisperd was, round by round; None for whisperd itself.
        errors: over all rounds.
        peak_bytes: the highest of all rounds.
        load_seconds: the median.
    """

    name: str
    about: str
    speed: Spread
    ahead: Spread | None
    errors: word_errors.Errors
    peak_bytes: int
    load_seconds: float


@dataclass(slots=True)
class Comparison:
    """The runs so far: name of the system -> one run a round.

    Attributes:
        broken: the systems that failed, and why; their runs do not count.
    """

    runs: dict[str, list[SystemRun]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


def compare_systems(
    systems: Sequence[System], recordings: Sequence[ReferenceRecording], rounds: int, show: Callable[[str], None]
) -> Comparison:
    """Run every system once in each round; the order rotates, so that a slow phase of the machine does not always hit the same one.

    Raises:
        WhisperdError: the first system, which the others are compared with, failed.
    """
    comparison = Comparison({system.name: [] for system in systems})
    for number in range(rounds):
        turn = number % len(systems)
        for system in (*systems[turn:], *systems[:turn]):
            if system.name in comparison.broken:
                continue
            try:
                run = system.run(recordings)
            except WhisperdError as error:
                if system is systems[0]:
                    raise
                comparison.broken[system.name] = str(error)
                del comparison.runs[system.name]
                show(str(error))
                continue
            comparison.runs[system.name].append(run)
            show(f"round {number + 1} of {rounds}: {system.name} took {run.seconds:.1f} s")
    return comparison


def figures_of(comparison: Comparison, recordings: Sequence[ReferenceRecording], language: str | None) -> list[Figures]:
    """Compute the figures in the order of the systems; the first one, whisperd, reports how long the recordings are.

    Args:
        comparison: at least one round.
        recordings: the recordings that all systems were given.
        language: of all recordings; None: see `language_of`.
    """
    first, *_ = comparison.runs.values()
    audio_seconds = sum(first[0].durations)
    rivals = [runs[0] for runs in comparison.runs.values()]
    languages = [
        language or recording.language or language_of([run.heard[number].language for run in rivals])
        for number, recording in enumerate(recordings)
    ]
    found = []
    for name, runs in comparison.runs.items():
        errors = word_errors.total(
            word_errors.compare(recording.reference, heard.text, spoken)
            for run in runs
            for recording, heard, spoken in zip(recordings, run.heard, languages, strict=True)
        )
        ahead = [run.seconds / ours.seconds for run, ours in zip(runs, first, strict=True)]
        found.append(
            Figures(
                name=name,
                about=runs[0].about,
                speed=Spread.of([audio_seconds / run.seconds for run in runs]),
                ahead=None if runs is first else Spread.of(ahead),
                errors=errors,
                peak_bytes=max(run.peak_bytes for run in runs),
                load_seconds=statistics.median(run.load_seconds for run in runs),
            )
        )
    return found


def language_of(heard: Sequence[str]) -> str:
    """The language that most systems detected; the first of them decides a tie."""
    counted = collections.Counter(language for language in heard if language)
    return counted.most_common(1)[0][0] if counted else ""
