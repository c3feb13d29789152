"""One job on its way through a batch: which windows are still to be decoded, and what the others came to.

The language of a recording is voted for by windows from several places of it, not by its first 30 seconds: those are
decoded first, each in the language that it seems to be in, and decoded again only where the vote went another way.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from whisperd.core.transcript import Segment, Transcript, Word
from whisperd.engine.api import SAMPLE_RATE, DecodedWindow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from whisperd.worker.journal import Key

VOTERS = 5
LEAST_REST_SECONDS = 0.5  # what a window left undecoded at its end is worth another look from this length on
LOW_CONFIDENCE_LOGPROB = -1.0


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the recording to be decoded, part of its window number `index`."""

    index: int
    start: int  # samples
    end: int
    language: str | None

    @property
    def key(self) -> Key:
        """What the journal knows it by."""
        return (self.start, self.end, self.language)


@dataclass(slots=True)
class Recording:
    """The windows of one recording.

    Args:
        windows: start and end in samples, in order.
        total: samples of the whole recording, of all its channels.
        language: as set for the job; None: it is voted for.
        speakers: of the channels, which come one after the other; none where nobody is told apart.
    """

    windows: Sequence[tuple[int, int]]
    total: int
    language: str | None
    speakers: tuple[str, ...] = ()
    votes: dict[str, float] = field(default_factory=dict)
    todo: collections.deque[Span] = field(init=False)
    _voters: set[int] = field(init=False)
    _open: int = 0
    _pieces: dict[int, list[tuple[Span, DecodedWindow]]] = field(default_factory=dict)
    _finished: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Line up the voters first, or all windows where there is nothing to vote for."""
        count = len(self.windows)
        voters = [] if self.language else sorted({count * number // VOTERS for number in range(min(VOTERS, count))})
        if count and not self.language and count <= VOTERS:
            voters = list(range(count))
        self._voters = set(voters)
        self.todo = collections.deque(self._span(number, self.language) for number in voters or range(count))

    def _span(self, index: int, language: str | None) -> Span:
        start, end = self.windows[index]
        return Span(index, start, end, language)

    def next(self) -> Span | None:
        """A span to be decoded now; None if none is left or all that are wait for the vote."""
        if not self.todo:
            return None
        self._open += 1
        return self.todo.popleft()

    def take(self, span: Span, decoded: DecodedWindow) -> None:
        """The result of a span."""
        self._open -= 1
        self._pieces.setdefault(span.index, []).append((span, decoded))
        covered = span.start + round(decoded.covered_seconds * SAMPLE_RATE)
        if not decoded.silent and span.start < covered < span.end - LEAST_REST_SECONDS * SAMPLE_RATE:
            self.todo.appendleft(Span(span.index, covered, span.end, decoded.language))
        else:
            self._finished.add(span.index)
        if self.language is None and self._voters <= self._finished:
            self._count_votes()

    def _count_votes(self) -> None:
        for index in sorted(self._voters):
            span, decoded = self._pieces[index][0]
            if not decoded.silent:
                weight = (decoded.language_probability or 1.0) * (span.end - span.start) / SAMPLE_RATE
                self.votes[decoded.language] = self.votes.get(decoded.language, 0.0) + weight
        if not self.votes:  # nobody spoke: what the first one seemed to be will do
            self.votes[self._pieces[min(self._voters)][0][1].language] = 0.0
        self.language = max(self.votes, key=self.votes.__getitem__)
        for index in range(len(self.windows)):
            if index not in self._voters or self._pieces[index][0][1].language != self.language:
                self._pieces.pop(index, None)
                self._finished.discard(index)
                self.todo.append(self._span(index, self.language))

    @property
    def is_done(self) -> bool:
        """Whether every window has its text."""
        return not self.todo and not self._open and len(self._finished) == len(self.windows)

    @property
    def finished_windows(self) -> int:
        """How many windows have their text; the vote may take some back."""
        return len(self._finished)

    @property
    def processed_seconds(self) -> float:
        """Audio seconds dealt with, a mean of the channels; the silence before a window counts with it, that at the end with the last one."""
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

    def settled(self) -> tuple[Segment, ...]:
        """The segments, without words, that stand before all that is still to come; none while the vote is on."""
        if self.language is None:
            return ()
        unfinished = (start for index, (start, _) in enumerate(self.windows) if index not in self._finished)
        horizon = min((start % self._length for start in unfinished), default=math.inf)
        before = (index for index, (start, _) in enumerate(self.windows) if start % self._length < horizon)
        segments = self._segments(before, words=False)
        if self.speakers:
            edge = round(horizon / SAMPLE_RATE, 3)  # rounded as the starts are, or one to come might tie with the last
            segments = [segment for segment in segments if segment.start < edge]
        return tuple(segments)

    def transcript(self) -> Transcript:
        """All text in the recording's own time."""
        everything = range(len(self.windows))
        segments = tuple(self._segments(everything))
        return Transcript(
            text="".join(segment.text for segment in segments),
            segments=segments,
            language=self.language or "",
            language_probability=self._certainty(),
            quality=self._quality([decoded for index in everything for _, decoded in self._pieces[index]], segments),
        )

    def _segments(self, indices: Iterable[int], *, words: bool = True) -> list[Segment]:
        """Those of some windows at their places in the recording, in order of time where several speak."""
        placed = [
            self._placed(segment if words else dataclasses.replace(segment, words=None), span)
            for index in indices
            for span, decoded in self._pieces[index]
            for segment in decoded.segments
        ]
        return sorted(placed, key=lambda segment: segment.start) if self.speakers else placed

    def _placed(self, segment: Segment, span: Span) -> Segment:
        channel, start = divmod(span.start, self._length)
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


def _mean(values: list[float]) -> float | None:
    """Rounded; None of nothing, or of numbers that overflowed, which JSON does not know."""
    mean = sum(values) / len(values) if values else math.nan
    return round(mean, 3) if math.isfinite(mean) else None


def _moved(segment: Segment, offset: float, end: float) -> Segment:
    """A segment of a window at its place in the recording."""

    def at(seconds: float) -> float:
        return round(min(seconds + offset, end), 3)

    words = segment.words
    return dataclasses.replace(
        segment,
        start=at(segment.start),
        end=at(segment.end),
        seek=round(offset * 100),
        words=None
        if words is None
        else tuple(Word(at(word.start), at(word.end), word.text, word.probability) for word in words),
    )
