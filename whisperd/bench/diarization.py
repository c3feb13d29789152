"""Measures diarization: the error rate (DER) with its three parts, the number of people, and the speed."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from whisperd.core.errors import WhisperdError
from whisperd.media.decode import decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from whisperd.core.options import DiarizationOptions, MediaOptions
    from whisperd.diarization.diarize import Diarizer

COLLAR_SECONDS = 0.25  # as is usual, besides none at all
STEP_SECONDS = 0.01
SAMPLES_PER_SECOND = 16_000
RTTM_FIELDS = 8  # up to the name of the speaker


@dataclass(frozen=True, slots=True)
class DiarizationError:
    """Seconds of speech, each person counted, and of what is wrong with it."""

    speech: float
    missed: float
    false_alarm: float
    confusion: float

    @property
    def rate(self) -> float:
        """The DER: what is wrong, as a part of the speech; not a number without speech."""
        wrong = self.missed + self.false_alarm + self.confusion
        return wrong / self.speech if self.speech else float("nan")

    def __add__(self, other: DiarizationError) -> DiarizationError:
        return DiarizationError(
            self.speech + other.speech,
            self.missed + other.missed,
            self.false_alarm + other.false_alarm,
            self.confusion + other.confusion,
        )


@dataclass(frozen=True, slots=True)
class DiarizationFigures:
    """The results over all conversations.

    Attributes:
        conversations: how many there are.
        audio_seconds: of all.
        error: without a collar.
        error_with_collar: with one of 0.25 s.
        right_numbers: conversations in which as many people were found as there are.
        seconds: that diarization took, decoding and loading not counted.
    """

    conversations: int
    audio_seconds: float
    error: DiarizationError
    error_with_collar: DiarizationError
    right_numbers: int
    seconds: float


def measure_diarization(
    paths: Sequence[Path], diarizer: Diarizer, options: DiarizationOptions, media: MediaOptions
) -> DiarizationFigures:
    """Find who speaks when in each recording, and compare it with the `.rttm` beside it.

    Raises:
        WhisperdError: a recording or its reference cannot be read.
    """
    total = with_collar = DiarizationError(0.0, 0.0, 0.0, 0.0)
    right = 0
    audio_seconds = seconds = 0.0
    for path in paths:
        try:
            reference = read_rttm(path.with_suffix(".rttm"))
        except (OSError, ValueError) as error:
            raise WhisperdError(
                str(error), hint="each line is `SPEAKER name 1 start length <NA> <NA> person`"
            ) from error
        with tempfile.NamedTemporaryFile(prefix="whisperd-bench-") as target:
            decode(path, Path(target.name), media.evolve(channels="mix", tracks="first"), lambda _: None)
            samples = np.fromfile(target.name, dtype=np.int16)
        began_at = time.monotonic()
        found = [
            (start, end, str(person)) for start, end, person in diarizer.diarize(samples, options, lambda _: None).turns
        ]
        seconds += time.monotonic() - began_at
        audio_seconds += len(samples) / SAMPLES_PER_SECOND
        total += score(reference, found)
        with_collar += score(reference, found, collar=COLLAR_SECONDS)
        right += len({name for *_, name in reference}) == len({name for *_, name in found})
    return DiarizationFigures(len(paths), audio_seconds, total, with_collar, right, seconds)


def read_rttm(path: Path) -> list[tuple[float, float, str]]:
    """Read start, end and name of each turn from a file in NIST's format RTTM.

    Raises:
        ValueError: a line is not one of RTTM; the message has its number.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        try:
            start, length = float(fields[3]), float(fields[4])
            found.append((start, start + length, fields[RTTM_FIELDS - 1]))
        except (IndexError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: not a line of RTTM: {line[:100]!r}") from error
    return found


def score(
    reference: Sequence[tuple[float, float, str]], found: Sequence[tuple[float, float, str]], *, collar: float = 0.0
) -> DiarizationError:
    """Compare turns with those of a reference, overlapping speech included.

    Frames of 10 ms are compared after the best one-to-one mapping of the names.

    Args:
        reference: start, end and name of each turn.
        found: the same, with any names.
        collar: seconds on both sides of each start and end in the reference that are not compared.
    """
    end = max((end for _, end, _ in (*reference, *found)), default=0.0)
    frames = round(end / STEP_SECONDS) + 1
    counted = np.ones(frames, dtype=bool)
    for start, stop, _ in reference if collar else ():
        for edge in (start, stop):
            counted[max(0, round((edge - collar) / STEP_SECONDS)) : round((edge + collar) / STEP_SECONDS)] = False
    wanted, given = _activity(reference, frames)[:, counted], _activity(found, frames)[:, counted]
    right = _best_mapping(wanted.astype(np.int64) @ given.T.astype(np.int64))
    in_wanted, in_given = wanted.sum(axis=0), given.sum(axis=0)
    missed = int(np.maximum(in_wanted - in_given, 0).sum())
    false_alarm = int(np.maximum(in_given - in_wanted, 0).sum())
    confusion = int(np.minimum(in_wanted, in_given).sum()) - right
    seconds = [frames * STEP_SECONDS for frames in (int(in_wanted.sum()), missed, false_alarm, confusion)]
    return DiarizationError(*seconds)


def _activity(turns: Iterable[tuple[float, float, str]], frames: int) -> npt.NDArray[np.bool_]:
    turns = list(turns)
    names = sorted({name for _, _, name in turns})
    active = np.zeros((len(names), frames), dtype=bool)
    for start, end, name in turns:
        active[names.index(name), round(start / STEP_SECONDS) : round(end / STEP_SECONDS)] = True
    return active


def _best_mapping(shared: npt.NDArray[np.int64]) -> int:
    """The most frames that a one-to-one mapping of rows to columns shares (the assignment problem).

    One row after the other is added along the cheapest path of changes: Kuhn and Munkres, as Jonker and Volgenant
    compute it (doi:10.1007/BF02278710).
    """
    size = max(shared.shape, default=0)
    cost = np.zeros((size + 1, size + 1))
    cost[1 : shared.shape[0] + 1, 1 : shared.shape[1] + 1] = -shared
    rows, columns = np.zeros(size + 1), np.zeros(size + 1)
    owner, way = np.zeros(size + 1, dtype=int), np.zeros(size + 1, dtype=int)
    for row in range(1, size + 1):
        owner[0], column = row, 0
        least, used = np.full(size + 1, np.inf), np.zeros(size + 1, dtype=bool)
        while owner[column]:
            used[column] = True
            reduced = cost[owner[column]] - rows[owner[column]] - columns
            better = ~used & (reduced < least)
            better[0] = False
            least[better], way[better] = reduced[better], column
            free = np.where(used, np.inf, least)
            free[0] = np.inf
            following = int(free.argmin())
            change = free[following]
            rows[owner[used]] += change
            columns[used] -= change
            least[~used] -= change
            column = following
        while column:
            owner[column] = owner[way[column]]
            column = way[column]
    return int(-sum(cost[owner[column], column] for column in range(1, size + 1)))
