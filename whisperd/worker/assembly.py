"""Assembles the transcript of one recording: which windows are still to be decoded, and the text of the others.

The engine decides the language of a whole recording that it takes. Otherwise windows from all over the recording vote,
not just its first 30 seconds: they are decoded first, each in the language that the engine detects in it, and decoded
again if the vote has another result.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whisperd.core.transcript import Segment, Transcript, Word
from whisperd.engine.api import SAMPLE_RATE, DecodedWindow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from whisperd.worker.resume_log import Key

VOTERS = 5
LEAST_REST_SECONDS = 0.5  # the undecoded end of a window is decoded by itself if it is at least this long
LOW_CONFIDENCE_LOGPROB = -1.0


@dataclass(frozen=True, slots=True)
class Piece:
    """What the engine gets at once: window number `index` of the recording, or the undecoded end of it."""

    index: int
    start: int  # samples
    end: int
    language: str | None  # None: the engine detects it

    @property
    def key(self) -> Key:
        """Its key in the resume log."""
        return (self.start, self.end, self.language)


class Assembly:
    """The windows of one recording and their texts.

    Args:
        windows: start and end in samples, in order.
        total: samples of the whole recording, of all its channels.
        language: as set for the job; None: it is voted for.
        speakers: names of the channels, which come one after the other; empty if channels are not separate.
        whole: each window is a whole recording, or channel, whose language is that of its text.
    """

    def __init__(
        self,
        windows: Sequence[tuple[int, int]],
        total: int,
        language: str | None,
        speakers: tuple[str, ...] = (),
        *,
        whole: bool = False,
    ) -> None:
        self.windows = windows
        self.total = total
        self.language = None if whole else language
        self.speakers = speakers
        self.votes: dict[str, float] = {}
        self._is_whole = whole
        self._open = 0
        self._pieces: dict[int, list[tuple[Piece, DecodedWindow]]] = {}
        self._finished: set[int] = set()
        count = len(windows)
        self._voters: set[int] = set()
        if not whole and not language:
            every = range(min(VOTERS, count))
            self._voters = set(every) if count <= VOTERS else {count * number // VOTERS for number in every}
        first = sorted(self._voters) or range(count)
        self._todo = collections.deque(self._piece(number, self.language) for number in first)

    def _piece(self, index: int, language: str | None) -> Piece:
        start, end = self.windows[index]
        return Piece(index, start, end, language)

    def next(self) -> Piece | None:
        """Hand out a piece to be decoded; None if none is left, or the rest waits for the vote."""
        if not self._todo:
            return None
        self._open += 1
        return self._todo.popleft()

    def take(self, piece: Piece, decoded: DecodedWindow) -> None:
        """Take the text of a piece."""
        self._open -= 1
        self._pieces.setdefault(piece.index, []).append((piece, decoded))
        covered = piece.start + round(decoded.covered_seconds * SAMPLE_RATE)
        if not decoded.silent and piece.start < covered < piece.end - LEAST_REST_SECONDS * SAMPLE_RATE:
            self._todo.appendleft(Piece(piece.index, covered, piece.end, decoded.language))
        else:
            self._finished.add(piece.index)
        if self._is_voting and self._voters <= self._finished:
            self._count_votes()

    @property
    def _is_voting(self) -> bool:
        return self.language is None and not self._is_whole

    def _count_votes(self) -> None:
        for index in sorted(self._voters):
            piece, decoded = self._pieces[index][0]
            if not decoded.silent:
                weight = (decoded.language_probability or 1.0) * (piece.end - piece.start) / SAMPLE_RATE
                self.votes[decoded.language] = self.votes.get(decoded.language, 0.0) + weight
        if not self.votes:  # nobody spoke, so any language will do
            self.votes[self._pieces[min(self._voters)][0][1].language] = 0.0
        self.language = max(self.votes, key=self.votes.__getitem__)
        for index in range(len(self.windows)):
            if index not in self._voters or self._pieces[index][0][1].language != self.language:
                self._pieces.pop(index, None)
                self._finished.discard(index)
                self._todo.append(self._piece(index, self.language))

    @property
    def has_work(self) -> bool:
        """Whether `next` would hand out a piece."""
        return bool(self._todo)

    @property
    def is_done(self) -> bool:
        """Whether every window has its text."""
        return not self._todo and not self._open and len(self._finished) == len(self.windows)

    @property
    def finished_windows(self) -> int:
        """How many windows have their text; the vote may take some of them back."""
        return len(self._finished)

    @property
    def processed_seconds(self) -> float:
        """Audio seconds that are done, a mean of the channels; silence counts with the window after it, or with the last one."""
        if len(self._finished) == len(self.windows):
            return self._length / SAMPLE_RATE
        done = 0
        for index in self._finished:
            before = self.windows[index - 1][1] if index else 0
            done += self.windows[index][1] - before
        return done / SAMPLE_RATE / max(1, len(self.speakers))

    @property
    def _length(self) -> int:
        return self.total // max(1, len(self.speakers))

    def final(self) -> tuple[Segment, ...]:
        """The segments, without words, before the first unfinished window: nothing will come between or before them."""
        if self._is_voting or not self.total:
            return ()
        unfinished = (start for index, (start, _) in enumerate(self.windows) if index not in self._finished)
        horizon = min((start % self._length for start in unfinished), default=math.inf)
        before = (index for index, (start, _) in enumerate(self.windows) if start % self._length < horizon)
        segments = self._segments(before, words=False)
        if self.speakers:
            edge = round(
                horizon / SAMPLE_RATE, 3
            )  # rounded as the starts are, or a later segment might tie with the last
            segments = [segment for segment in segments if segment.start < edge]
        return tuple(segments)

    def transcript(self) -> Transcript:
        """Put all text together, in the recording's own time."""
        segments = tuple(self._segments(range(len(self.windows))))
        decoded = [decoded for index in range(len(self.windows)) for _, decoded in self._pieces[index]]
        text = "".join(segment.text for segment in segments)
        if self._is_whole:
            main = max(decoded, key=_length_of_text)  # of the speaker who said most
            return Transcript(text, segments, main.language, main.language_probability)
        return Transcript(text, segments, self.language or "", self._certainty(), self._quality(decoded, segments))

    def _segments(self, indices: Iterable[int], *, words: bool = True) -> list[Segment]:
        """The segments of some windows at their times in the recording, sorted by time if there are several speakers."""
        placed = [
            self._placed(segment if words else dataclasses.replace(segment, words=None), piece)
            for index in indices
            for piece, decoded in self._pieces[index]
            for segment in decoded.segments
        ]
        return sorted(placed, key=lambda segment: segment.start) if self.speakers else placed

    def _placed(self, segment: Segment, piece: Piece) -> Segment:
        channel, start = divmod(piece.start, self._length)
        placed = _moved(segment, start / SAMPLE_RATE, self._length / SAMPLE_RATE)
        return dataclasses.replace(placed, speaker=self.speakers[channel]) if self.speakers else placed

    def _certainty(self) -> float | None:
        whole = sum(self.votes.values())
        return round(self.votes[self.language] / whole, 4) if self.language and whole else None

    def _quality(self, decoded: list[DecodedWindow], segments: tuple[Segment, ...]) -> dict[str, Any]:
        spoken = sum(end - start for start, end in self.windows) / SAMPLE_RATE
        heard = [window for window in decoded if not window.silent]
        doubtful = [segment for segment in segments if segment.avg_logprob < LOW_CONFIDENCE_LOGPROB]
        return {
            "speech_seconds": round(spoken, 2),
            "dropped_seconds": round(self.total / SAMPLE_RATE - spoken, 2),
            "windows": len(self.windows),
            "silent_windows": len(decoded) - len(heard),
            "fallback_windows": sum(window.attempts > 1 for window in decoded),
            "looped_windows": sum(window.looped for window in decoded),
            "compression_ratio": _mean([window.compression_ratio for window in heard]),
            "avg_logprob": _mean([window.avg_logprob for window in heard]),
            "low_confidence": [[round(segment.start, 2), round(segment.end, 2)] for segment in doubtful],
            "language_votes": {language: round(weight, 2) for language, weight in self.votes.items()},
        }


def _length_of_text(window: DecodedWindow) -> int:
    return sum(len(segment.text) for segment in window.segments)


def _mean(values: list[float]) -> float | None:
    """Rounded; None of nothing, or of numbers that overflowed, which JSON does not know."""
    mean = sum(values) / len(values) if values else math.nan
    return round(mean, 3) if math.isfinite(mean) else None


def _moved(segment: Segment, offset: float, end: float) -> Segment:
    """Move a segment from the time of its window to that of the recording."""

    def at(seconds: float) -> float:
        return round(min(seconds + offset, end), 3)

    words = segment.words
    return dataclasses.replace(
        segment,
        start=at(segment.start),
        end=at(segment.end),
        seek=segment.seek + round(offset * 100),
        words=None
        if words is None
        else tuple(Word(at(word.start), at(word.end), word.text, word.probability) for word in words),
    )
