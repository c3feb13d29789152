"""Several systems over the same recordings, in turn, and what came of it."""

from __future__ import annotations

import collections
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from whisperd.bench import wer
from whisperd.core.errors import WhisperdError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from whisperd.bench.corpus import ReferenceRecording
    from whisperd.bench.systems import System, SystemRun


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of several figures, and how far they lie apart."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(min(values), statistics.median(values), max(values))


@dataclass(frozen=True, slots=True)
class Figures:
    """What a table says of one system.

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
    errors: wer.Errors
    peak_bytes: int
    load_seconds: float


@dataclass(slots=True)
class Contest:
    """The runs so far: name of the system -> one run a round.

    Attributes:
        broken: who could not go on, and why; their runs do not count.
    """

    runs: dict[str, list[SystemRun]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


def compete(
    systems: Sequence[System], recordings: Sequence[ReferenceRecording], rounds: int, show: Callable[[str], None]
) -> Contest:
    """Each round takes every system once, the first of them last in the next: what slows the machine down meets all.

    Raises:
        WhisperdError: the first system, which the others are compared with, failed.
    """
    contest = Contest({system.name: [] for system in systems})
    for number in range(rounds):
        turn = number % len(systems)
        for system in (*systems[turn:], *systems[:turn]):
            if system.name in contest.broken:
                continue
            try:
                run = system.run(recordings)
            except WhisperdError as error:
                if system is systems[0]:
                    raise
                contest.broken[system.name] = str(error)
                del contest.runs[system.name]
                show(str(error))
                continue
            contest.runs[system.name].append(run)
            show(f"round {number + 1} of {rounds}: {system.name} took {run.seconds:.1f} s")
    return contest


def figures(contest: Contest, recordings: Sequence[ReferenceRecording], language: str | None) -> list[Figures]:
    """What came of it, in the order of the systems; the first one, whisperd, knows how long the recordings are.

    Args:
        contest: with at least one round.
        recordings: that all systems were given.
        language: of all recordings; None: see `language_of`.
    """
    first, *_ = contest.runs.values()
    audio_seconds = sum(first[0].durations)
    rivals = [runs[0] for runs in contest.runs.values()]
    languages = [
        language or recording.language or language_of([run.heard[number].language for run in rivals])
        for number, recording in enumerate(recordings)
    ]
    found = []
    for name, runs in contest.runs.items():
        errors = wer.total(
            wer.compare(recording.reference, heard.text, spoken)
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
    """What most systems took it for; the first of them decides a tie."""
    counted = collections.Counter(language for language in heard if language)
    return counted.most_common(1)[0][0] if counted else ""
