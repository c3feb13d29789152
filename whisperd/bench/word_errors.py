"""Computes word error rates, after the normalisation of the Whisper paper (arXiv:2212.04356, appendix C)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

UNSPACED = frozenset({"ja", "lo", "my", "th", "yue", "zh"})  # written without spaces: every character is a word


@dataclass(frozen=True, slots=True)
class Errors:
    """How many words of a transcript are wrong, missing or too many, and how many were spoken."""

    wrong: int
    words: int

    @property
    def rate(self) -> float | None:
        """The error rate in percent; None where nothing was spoken."""
        return 100 * self.wrong / self.words if self.words else None


def total(parts: Iterable[Errors]) -> Errors:
    """Add up the errors of several recordings, so that long ones count for more."""
    parts = list(parts)
    return Errors(sum(part.wrong for part in parts), sum(part.words for part in parts))


def compare(reference: str, text: str, language: str) -> Errors:
    """Count the errors of a transcript. The first call loads openai-whisper, which takes seconds."""
    said, heard = normalise(reference, language), normalise(text, language)
    return Errors(distance(said, heard), len(said))


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
