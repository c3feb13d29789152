"""Compares systems: runs each over the same recordings, round after round, and computes speed, errors and memory.

Word error rates are counted after the normalisation of the Whisper paper (arXiv:2212.04356, appendix C).
"""

from __future__ import annotations

import collections
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from whisperd.core.errors import WhisperdError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from whisperd.bench.recordings import ReferenceRecording
    from whisperd.bench.systems import System, SystemRun

UNSPACED = frozenset({"ja", "lo", "my", "th", "yue", "zh"})  # written without spaces: every character is a word


@dataclass(frozen=True, slots=True)
class WordErrors:
    """How many words of a transcript are wrong, missing or too many, and how many were spoken."""

    wrong: int
    words: int

    @property
    def rate(self) -> float | None:
        """The error rate in percent; None where nothing was spoken."""
        return 100 * self.wrong / self.words if self.words else None


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
    errors: WordErrors
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
        errors = total_errors(
            word_errors(recording.reference, heard.text, spoken)
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


def total_errors(parts: Iterable[WordErrors]) -> WordErrors:
    """Add up the errors of several recordings, so that long ones count for more."""
    parts = list(parts)
    return WordErrors(sum(part.wrong for part in parts), sum(part.words for part in parts))


def word_errors(reference: str, text: str, language: str) -> WordErrors:
    """Count the errors of a transcript. The first call loads openai-whisper, which takes seconds."""
    said, heard = normalise(reference, language), normalise(text, language)
    return WordErrors(distance(said, heard), len(said))


def normalise(text: str, language: str) -> list[str]:
    """Split a text into words in lower case, without punctuation; in English, numbers and spellings become alike too."""
    from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer  # noqa: PLC0415  # it loads torch

    if language == "en":
        normal = EnglishTextNormalizer()(text)
    else:
        normal = BasicTextNormalizer(split_letters=language in UNSPACED)(text)
    words: list[str] = normal.split()
    return words


def distance(said: Sequence[str], heard: Sequence[str]) -> int:
    """Count the fewest insertions, deletions and substitutions that turn one into the other (Levenshtein)."""
    costs = list(range(len(heard) + 1))
    for row, word in enumerate(said, 1):
        diagonal, costs[0] = costs[0], row
        for column, other in enumerate(heard, 1):
            best = min(costs[column] + 1, costs[column - 1] + 1, diagonal + (word != other))
            diagonal, costs[column] = costs[column], best
    return costs[-1]
