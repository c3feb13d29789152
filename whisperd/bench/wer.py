"""Word error rate, after the normalisation of the Whisper paper (arXiv:2212.04356, appendix C)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

UNSPACED = frozenset({"ja", "lo", "my", "th", "yue", "zh"})  # written without spaces: every character is a word


@dataclass(frozen=True, slots=True)
class Errors:
    """Words that are wrong, missing or too many, of so many that were said."""

    wrong: int
    words: int

    @property
    def rate(self) -> float | None:
        """In percent; None where nothing was said."""
        return 100 * self.wrong / self.words if self.words else None


def total(parts: Iterable[Errors]) -> Errors:
    """Over several recordings, long ones counting for more."""
    parts = list(parts)
    return Errors(sum(part.wrong for part in parts), sum(part.words for part in parts))


def compare(reference: str, text: str, language: str) -> Errors:
    """The errors of a transcript. The first call loads openai-whisper, which takes seconds."""
    said, heard = normalise(reference, language), normalise(text, language)
    return Errors(distance(said, heard), len(said))


def normalise(text: str, language: str) -> list[str]:
    """Words in lower case, without punctuation; in English, numbers and spellings made alike too."""
    from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer  # noqa: PLC0415  # it loads torch

    if language == "en":
        normal = EnglishTextNormalizer()(text)
    else:
        normal = BasicTextNormalizer(split_letters=language in UNSPACED)(text)
    words: list[str] = normal.split()
    return words


def distance(said: Sequence[str], heard: Sequence[str]) -> int:
    """The fewest insertions, deletions and substitutions that turn one into the other (Levenshtein)."""
    costs = list(range(len(heard) + 1))
    for row, word in enumerate(said, 1):
        diagonal, costs[0] = costs[0], row
        for column, other in enumerate(heard, 1):
            best = min(costs[column] + 1, costs[column - 1] + 1, diagonal + (word != other))
            diagonal, costs[column] = costs[column], best
    return costs[-1]
