"""Groups voices: which of the people that were heard in separate windows are one, and how many there are.

A vector is taken for the sum of its voice, of what all voices of a recording share (the room, the telephone), and of noise
that shrinks with the length of the speech. Two groups are joined, the surest first, while the cosine of their mean vectors is
more likely for one person than for two: little speech proves little, much speech proves much, and no threshold depends on the
length of the recording. What the voices of a recording share is measured on the recording itself. NOTES.md has the figures.

Known voices are recognized by the same cosine. What all voices share on the telephone is subtracted there.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

NOISE_SECONDS = 1.05  # speech of this length is as much noise as voice
SAME = 0.96  # cosine of two vectors of one voice, without noise ...
SAME_SPREAD, SAME_SPREAD_SECOND = 0.04, 0.2  # ... its standard deviation, and more of it for one second
SHARED = 0.14  # the same for two voices, where a recording says nothing about it
SHARED_SPREAD, SHARED_SPREAD_SECOND = 0.13, 0.15
MOST_SHARED = 0.65
SHARED_PERCENTILE, SHARED_ABOVE = 10, 0.14  # of all pairs; the mean of two voices is this much above it
SAME_PERCENTILE, HIGH = 90, 1.07  # of all pairs, and the most that it usually is
ONE_VOICE = 0.63  # where the low percentile is higher, all pairs may be of one voice
LONG_SECONDS = 1.4  # vectors of shorter speech say little about pairs
LEAST_EVIDENCE = 0.0  # log-likelihood ratio above which two groups are joined ...
LEAST_EVIDENCE_IN_WINDOW = -0.5  # ... and two pieces that the segmentation network took for one person
LEAST_SECONDS = 1.0  # a group with less speech is nobody of its own ...
LEAST_SHARE = 0.005  # ... nor is one with less than this part of all speech: in hours, odd pieces gather
MIXED = 0.6  # cosine, without noise, with the plane of two people, from which a group is both at once ...
MIXED_SECONDS, MIXED_SHARE = 3.0, 0.02  # ... unless it has more speech than this, or than this part of all
PRIOR_SECONDS = 0.5  # how much the other pieces of a voice say about one of them
LEAST_LIKENESS = 0.65  # of a person and a known voice ...
LEAST_KNOWN_SECONDS = 2.0  # ... and of speech of that person ...
LEAST_PIECE_LIKENESS, LEAST_SHARE_ALIKE = 0.4, 0.75  # ... of which this part must be like the voice by itself
NARROW_CENTRE = (  # the mean of the vectors of many voices on the telephone, in thousandths
    np.frombuffer(
        base64.b64decode(
            b"2vMA5+f14i4R9bAM8NT1RfQrOOhHJN1AEQbAHAEt+voj9SAx4bg2AjMRzzACHuYOIUPn9LwaFFBi/OHo49QtCR/Y"
            b"8NXm7DcEBBy9EQAv8RraIMQqJiYfGNfj8CAMK/0ZJ+L4/O6/C/cAERIW7P0Lw/ra6RUIOSes6icd6doJ6SIQNeoe"
            b"GNLwDvSzByb5ARxlBuok5xjK+rgdKQf9++PE6SPpBhgS8wP/xCkq3iQl/v9K/hbC8B0LGRrqB+sfBcsD"
        ),
        np.int8,
    )
    / 1000
)
MOST_JOINED = 1000  # voices that are joined; the others go to the nearest group, or time would grow with their cube


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """Pieces of speech of one person each.

    Attributes:
        vectors: shape (pieces, size), of length 1.
        seconds: shape (pieces,), how long each is.
        windows: shape (pieces,), the number of the window that it was heard in, in order.
        people: shape (pieces,), which person of the window it was taken for.
    """

    vectors: npt.NDArray[np.float32]
    seconds: npt.NDArray[np.float32]
    windows: npt.NDArray[np.int64]
    people: npt.NDArray[np.int64]


class VoicePrint(NamedTuple):
    """What a voice is like: the sum of the vectors of its speech, weighted by their lengths, and the length of that speech."""

    voice: npt.NDArray[np.float64]
    seconds: float


class HeardVoice(NamedTuple):
    """The speech of one person of a recording: the vectors of its pieces, shape (pieces, size), and their lengths in seconds."""

    vectors: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.float32]

    @property
    def print(self) -> VoicePrint:
        """What the voice is like."""
        return VoicePrint(self.lengths.astype(np.float64) @ self.vectors, float(self.lengths.sum()))


def likeness(people: Sequence[HeardVoice], known: Sequence[VoicePrint], *, is_narrow: bool) -> npt.NDArray[np.float64]:
    """Compare people with known voices: shape (people, known), from 0 to 1.

    It is 0 for whoever says too little, and where too much of the speech is not like the voice by itself: then two people
    may have been taken for one.

    Args:
        people: of a recording.
        known: prints of samples that had the same band, at least one.
        is_narrow: whether that is the band of the telephone.
    """
    centre = NARROW_CENTRE if is_narrow else 0.0

    def centred(vectors: npt.NDArray[np.float64], seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return _unit(_unit(vectors) - centre) / _clarity(seconds)[:, None]

    voices = centred(np.array([each.voice for each in known]), np.array([each.seconds for each in known]))
    scores = np.zeros((len(people), len(known)))
    for row, (person, (voice, seconds)) in zip(scores, ((each, each.print) for each in people), strict=True):
        if seconds >= LEAST_KNOWN_SECONDS:
            alike = (
                centred(person.vectors.astype(np.float64), person.lengths.astype(np.float64)) @ voices.T
                >= LEAST_PIECE_LIKENESS
            )
            is_one = person.lengths @ alike >= LEAST_SHARE_ALIKE * seconds
            row[:] = np.clip(centred(voice[None], np.array([seconds])) @ voices.T, 0.0, 1.0)[0] * is_one
    return scores


def recognize(scores: npt.NDArray[np.float64]) -> list[tuple[int, int, float]]:
    """Decide who is whom: number of a person, number of a known voice, and their score, the best score first.

    One voice names one person at most, and one person has one name at most.

    Args:
        scores: as of `likeness`.
    """
    scores = scores.copy()
    found = []
    while scores.size and scores.max() >= LEAST_LIKENESS:
        person, voice = divmod(int(scores.argmax()), scores.shape[1])
        found.append((person, voice, float(scores[person, voice])))
        scores[person], scores[:, voice] = -1.0, -1.0
    return found


def group(pieces: Pieces, least: int, most: int | None) -> npt.NDArray[np.int64]:
    """Number the person of each piece, from 0.

    Args:
        pieces: at least one.
        least: people that there are at least, as far as there are voices for them.
        most: people that there are at most; None: any number.
    """
    sums = pieces.vectors.astype(np.float64) * pieces.seconds[:, None]
    seconds = pieces.seconds.astype(np.float64)
    longest = np.argsort(-seconds, kind="stable")[:MOST_JOINED]
    scale, shared = _measure(sums[longest], seconds[longest])
    voices = _voices(pieces, sums, seconds, scale=scale, shared=shared)
    count = voices.max() + 1
    voice_sums, voice_seconds = np.zeros((count, sums.shape[1])), np.zeros(count)
    np.add.at(voice_sums, voices, sums)
    np.add.at(voice_seconds, voices, seconds)
    chosen = np.sort(np.argsort(-voice_seconds, kind="stable")[:MOST_JOINED])
    labels = _join(
        voice_sums[chosen],
        voice_seconds[chosen],
        shared=shared,
        scale=scale,
        least_evidence=LEAST_EVIDENCE,
        least=least,
        most=most,
    )
    centres = np.zeros((labels.max() + 1, sums.shape[1]))
    np.add.at(centres, labels, voice_sums[chosen])
    heard = np.bincount(labels, weights=voice_seconds[chosen]).astype(np.float64)
    centres = centres[~_mixed(centres, heard, least)]
    informed = sums + PRIOR_SECONDS * _unit(voice_sums)[voices]
    numbers: npt.NDArray[np.int64] = np.argmax(informed @ _unit(centres).T, axis=1)
    return numbers


def _voices(
    pieces: Pieces,
    sums: npt.NDArray[np.float64],
    seconds: npt.NDArray[np.float64],
    *,
    scale: float,
    shared: float,
) -> npt.NDArray[np.int64]:
    """Number what was heard of each person in each window; pieces that differ too much are two people after all."""
    voices = np.zeros(len(seconds), dtype=np.int64)
    count = 0
    places = pieces.windows * (pieces.people.max() + 1) + pieces.people
    for place in np.unique(places):
        members = np.flatnonzero(places == place)
        voices[members] = count + _join(
            sums[members],
            seconds[members],
            shared=shared,
            scale=scale,
            least_evidence=LEAST_EVIDENCE_IN_WINDOW,
        )
        count = voices[members].max() + 1
    return voices


def _join(
    sums: npt.NDArray[np.float64],
    seconds: npt.NDArray[np.float64],
    *,
    shared: float,
    scale: float,
    least_evidence: float,
    least: int = 1,
    most: int | None = None,
) -> npt.NDArray[np.int64]:
    """Join the most similar groups until none are similar enough; returns the number of the group of each."""
    sums, seconds = sums.copy(), seconds.copy()
    size = len(seconds)
    groups = np.arange(size)
    alive = np.ones(size, dtype=bool)

    def evidence(one: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        clear, noise = _clarity(seconds), (1 / seconds[one, None] + 1 / seconds) / 2
        centres = _unit(sums)
        cosine = (centres[one] @ centres.T) / (clear[one, None] * clear * scale)
        same, two = SAME_SPREAD**2 + SAME_SPREAD_SECOND**2 * noise, SHARED_SPREAD**2 + SHARED_SPREAD_SECOND**2 * noise
        ratio = np.maximum(cosine - shared, 0.0) ** 2 / two - np.minimum(cosine - SAME, 0.0) ** 2 / same
        found: npt.NDArray[np.float64] = (ratio + np.log(two / same)) / 2
        return found

    scores = evidence(groups)
    np.fill_diagonal(scores, -np.inf)
    while alive.sum() > max(least, 1):
        first, second = divmod(int(np.argmax(scores)), size)
        if scores[first, second] < least_evidence and (most is None or alive.sum() <= most):
            break
        sums[first] += sums[second]
        seconds[first] += seconds[second]
        groups[groups == second] = first
        alive[second] = False
        scores[second], scores[:, second] = -np.inf, -np.inf
        row = evidence(np.array([first]))[0]
        row[~alive] = row[first] = -np.inf
        scores[first], scores[:, first] = row, row
    numbers: npt.NDArray[np.int64] = np.unique(groups, return_inverse=True)[1]
    return numbers


def _measure(sums: npt.NDArray[np.float64], seconds: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Measure on a recording how much less noise its vectors have than usual, and the cosine of two of its people.

    The most similar pairs are of one person, and the least similar ones of two, unless there is only one. On the
    telephone all vectors are more alike than the model says, those of two people too.
    """
    long = seconds >= LONG_SECONDS
    if long.sum() < 3:  # noqa: PLR2004  # one pair has no percentiles
        return 1.0, SHARED
    clear, unit = _clarity(seconds[long]), _unit(sums[long])
    cosines = (unit @ unit.T) / (clear[:, None] * clear)
    low, high = np.percentile(cosines[np.triu_indices(len(clear), 1)], (SHARED_PERCENTILE, SAME_PERCENTILE))
    scale = max(1.0, float(high) / HIGH)
    low = float(low) / scale
    return scale, SHARED if low >= ONE_VOICE else float(np.clip(low + SHARED_ABOVE, SHARED, MOST_SHARED))


def _mixed(centres: npt.NDArray[np.float64], seconds: npt.NDArray[np.float64], least: int) -> npt.NDArray[np.bool_]:
    """Which groups are nobody of their own: too little speech, or two other people at once.

    The vector of two who speak at once lies between theirs. The largest `least` groups are people in any case.
    """
    unit, clear = _unit(centres), _clarity(seconds)
    order = np.argsort(-seconds, kind="stable")
    mixed: npt.NDArray[np.bool_] = seconds < max(LEAST_SECONDS, LEAST_SHARE * seconds.sum())
    longest = max(MIXED_SECONDS, MIXED_SHARE * seconds.sum())
    for one in order[::-1]:
        others = np.flatnonzero(~mixed & (seconds > seconds[one]))
        if seconds[one] > longest or len(others) < 2:  # noqa: PLR2004  # two people
            continue
        towards, between = unit[others] @ unit[one], unit[others] @ unit[others].T
        pairs = np.triu_indices(len(others), 1)
        a, b, c = towards[pairs[0]], towards[pairs[1]], np.clip(between[pairs], -0.95, 0.95)
        within = np.sqrt(np.maximum(a**2 + b**2 - 2 * a * b * c, 0.0) / (1 - c**2)) * ((a > 0) & (b > 0))
        mixed[one] |= within.max() / clear[one] > MIXED
    mixed[order[: max(least, 1)]] = False
    return mixed


def _clarity(seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The cosine of a voice and the vector of this much of its speech."""
    clear: npt.NDArray[np.float64] = 1 / np.sqrt(1 + NOISE_SECONDS / seconds)
    return clear


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    unit: npt.NDArray[np.float64] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return unit
