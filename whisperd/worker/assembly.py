"""Assembles the transcript of one recording: which windows are still to be decoded, and the text of the others.

The engine decides the language of a whole recording that it takes. Otherwise windows from all over the recording vote for
its main language, not just its first 30 seconds: they are decoded first, each in the language that the engine detects in
it, and decoded again if the vote has another result. Where the engine hears another language than the main one, each part
of the windows gets its own (`whisperd.worker.languages`).
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from whisperd.core.transcript import Segment, Transcript, Word
from whisperd.engine.api import SAMPLE_RATE, DecodedWindow
from whisperd.worker.attribution import Attribution
from whisperd.worker.languages import RecordingLanguages, grouped, is_foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from whisperd.core.transcript import Turn
    from whisperd.worker.gaps import GapSearch
    from whisperd.worker.languages import Chances, Part
    from whisperd.worker.resume_log import Key

VOTERS = 5
LEAST_REST_SECONDS = 0.5  # the undecoded end of a window is decoded by itself if it is at least this long
LOW_CONFIDENCE_LOGPROB = -1.0


@dataclass(frozen=True, slots=True)
class Piece:
    """What the engine gets at once: window number `index` of the recording, or a part of it.

    Attributes:
        index: number of the window.
        start: in samples.
        end: in samples.
        language: a code; None: the engine detects it.
        kind: `text`; `screen`, text unless the engine hears another language; `look`, only the language; `gap`, once more.
        listen: start and end, in samples from its own start, of the parts whose language the engine is to detect.
        part: number of the part that a `look` is for.
    """

    index: int
    start: int
    end: int
    language: str | None
    kind: Literal["text", "screen", "look", "gap"] = "text"
    listen: tuple[tuple[int, int], ...] = ()
    part: int = 0

    @property
    def key(self) -> Key:
        """Its key in the resume log."""
        return (self.start, self.end, self.language, self.kind)

    @property
    def accepts(self) -> Callable[[Sequence[Chances]], bool] | None:
        """What `AudioWindow.accepts` is to be."""
        main = self.language
        if self.kind != "screen" or main is None:
            return None
        return lambda heard: not is_foreign(heard, main)


class Assembly:
    """The windows of one recording and their texts.

    Args:
        windows: start and end in samples, in order.
        total: samples of the whole recording, of all its channels.
        language: as set for the job; None: it is voted for.
        speakers: names of the channels, which come one after the other; empty if channels are not separate.
        turns: who speaks when in each channel; None: people are not told apart.
        names: of the people of each channel whose voice is known, by their numbers.
        whole: each window is a whole recording, or channel, whose language is that of its text.
        parts: of each window, start and end in samples of the parts that may have a language of their own; none: the whole
            recording has one.
        gaps: finds speech without text; None: nobody looks for it.
    """

    def __init__(
        self,
        windows: Sequence[tuple[int, int]],
        total: int,
        language: str | None,
        speakers: tuple[str, ...] = (),
        turns: Sequence[Sequence[Turn]] | None = None,
        *,
        whole: bool = False,
        parts: Sequence[tuple[Part, ...]] = (),
        gaps: GapSearch | None = None,
        names: Sequence[Mapping[int, str]] = (),
    ) -> None:
        self.windows = windows
        self.total = total
        self.language = None if whole else language
        self.speakers = speakers
        self.votes: dict[str, float] = {}
        self._attributions = [
            Attribution(own, channel, known)
            for own, channel, known in zip(
                turns or (), speakers or (None,), names or itertools.repeat({}), strict=False
            )
        ]
        self._is_whole = whole
        self._open = 0
        self._pieces: dict[int, list[tuple[Piece, DecodedWindow]]] = {}
        self._left = collections.Counter[int]()  # pieces of each window that have no text yet
        count = len(windows)
        self._gaps = gaps
        self._languages: RecordingLanguages | None = None
        if parts and not language and not whole:
            self._languages = RecordingLanguages(
                [(own, start // max(1, self._length)) for own, (start, _) in zip(parts, windows, strict=True)]
            )
        self._voters: set[int] = set()
        if not whole and not language:
            every = range(min(VOTERS, count))
            self._voters = set(every) if count <= VOTERS else {count * number // VOTERS for number in every}
        first = sorted(self._voters) or range(count)
        self._todo: collections.deque[Piece] = collections.deque()
        for number in first:
            self._add(self._first(number, self.language))

    def _first(self, index: int, language: str | None) -> Piece:
        """Make the piece with which a window begins."""
        start, end = self.windows[index]
        if self._languages is None:
            return Piece(index, start, end, language)
        groups = grouped(self._languages.windows[index].parts)
        listen = tuple((first - start, last - start) for first, last in groups)
        return Piece(index, start, end, language, "screen" if language else "text", listen)

    def _add(self, piece: Piece) -> None:
        if piece.kind == "gap":
            self._todo.appendleft(
                piece
            )  # its window is unfinished meanwhile: last, it would hold up progress and text so far
        else:
            self._todo.append(piece)
        self._left[piece.index] += piece.kind != "look"

    def next(self) -> Piece | None:
        """Hand out a piece to be decoded; None if none is left, or the rest waits for the vote."""
        if not self._todo:
            return None
        self._open += 1
        return self._todo.popleft()

    def take(self, piece: Piece, decoded: DecodedWindow) -> None:
        """Take the text of a piece, or what was heard in it."""
        self._open -= 1
        if piece.kind == "look":
            if self._languages is not None:
                self._languages.windows[piece.index].alone[piece.part] = decoded.heard[0] if decoded.heard else {}
        elif piece.kind == "gap":
            self._take_gap(piece, decoded)
        else:
            self._take_text(piece, decoded)
        if self._is_voting and not any(self._left[index] for index in self._voters):
            self._count_votes()
        if self._languages is not None and self.language is not None:
            self._review(self._languages, self.language)
        if self._gaps is not None and not self._is_voting:
            self._look_for_gaps(self._gaps)

    def _take_text(self, piece: Piece, decoded: DecodedWindow) -> None:
        if self._languages is not None and self._languages.windows[piece.index].heard is None:
            self._languages.windows[piece.index].heard = decoded.heard
        self._left[piece.index] -= 1
        if not decoded.is_decoded:
            return
        self._pieces.setdefault(piece.index, []).append((piece, decoded))
        covered = piece.start + round(decoded.covered_seconds * SAMPLE_RATE)
        if not decoded.silent and piece.start < covered < piece.end - LEAST_REST_SECONDS * SAMPLE_RATE:
            self._todo.appendleft(Piece(piece.index, covered, piece.end, decoded.language))
            self._left[piece.index] += 1

    def _review(self, languages: RecordingLanguages, main: str) -> None:
        """Listen to parts whose language is in doubt, and decode parts again that have another language than their text."""
        for index, number in languages.wanted(main):
            start, end = languages.windows[index].parts[number]
            self._add(Piece(index, start, end, None, "look", part=number))
        for index, spoken in languages.decide(main, lambda index: not self._left[index]):
            if len(spoken) == 1:
                start, end = self.windows[index]
                spoken = [(start, end, spoken[0][2])]  # noqa: PLW2901
            texts = self._pieces.get(index, [])
            if texts and len(spoken) == 1 and all(decoded.language == spoken[0][2] for _, decoded in texts):
                continue
            self._pieces.pop(index, None)
            for start, end, language in spoken:
                self._add(Piece(index, start, end, language))

    def _look_for_gaps(self, gaps: GapSearch) -> None:
        """Decode the gaps of windows once more whose text would be final otherwise."""
        for index in range(len(self.windows)):
            if index in gaps.tried or not self._has_text(index):
                continue
            gaps.tried.add(index)
            texts = self._timed(index)
            for gap in gaps.find(index, texts):
                start, end = gaps.wider(gap, texts, self._neighbours(index))
                self._add(Piece(index, start, end, None if self._voters else self.language, "gap"))

    def _take_gap(self, piece: Piece, decoded: DecodedWindow) -> None:
        """Take the text of a gap that was decoded once more, instead of what was there; or leave that, if it is no better."""
        self._left[piece.index] -= 1
        if self._gaps is None or not self._gaps.is_filled(decoded):
            return
        self._gaps.filled += 1
        kept = [
            (old, text)
            for old, text in self._pieces[piece.index]
            if not piece.start <= old.start < old.end <= piece.end
        ]
        self._pieces[piece.index] = [*kept, (piece, decoded)]

    def _timed(self, index: int) -> list[tuple[int, int, DecodedWindow]]:
        return [(piece.start, piece.end, decoded) for piece, decoded in self._texts(index)]

    def _neighbours(self, index: int) -> tuple[int, int]:
        """The end of the window before, and the start of the window after; those of the channel if there is none."""
        start, end = self.windows[index]
        channel = start // self._length
        first, last = channel * self._length, (channel + 1) * self._length
        before = self.windows[index - 1][1] if index else 0
        after = self.windows[index + 1][0] if index + 1 < len(self.windows) else self.total
        return min(start, max(first, before)), max(end, min(last, after))

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
            if index not in self._voters:
                self._add(self._first(index, self.language))
            elif self._pieces[index][0][1].language != self.language and not self._is_foreign(index):
                self._pieces.pop(index)
                start, end = self.windows[index]
                self._add(Piece(index, start, end, self.language))

    def _is_foreign(self, index: int) -> bool:
        """Whether the parts of a window will be listened to, because another language than the main one was heard."""
        if self._languages is None or self.language is None:
            return False
        return self._languages.windows[index].is_foreign(self.language)

    @property
    def has_work(self) -> bool:
        """Whether `next` would hand out a piece."""
        return bool(self._todo)

    @property
    def is_done(self) -> bool:
        """Whether every window has its text."""
        return not self._todo and not self._open and self.finished_windows == len(self.windows)

    def _is_finished(self, index: int) -> bool:
        return self._has_text(index) and (self._gaps is None or self._is_voting or index in self._gaps.tried)

    def _has_text(self, index: int) -> bool:
        """Whether a window has all of its text, and its languages are final."""
        if index not in self._pieces or self._left[index]:
            return False
        return self._languages is None or self.language is None or self._languages.is_settled(index, self.language)

    @property
    def finished_windows(self) -> int:
        """How many windows have their text; the vote may take some of them back."""
        return sum(map(self._is_finished, range(len(self.windows))))

    @property
    def processed_seconds(self) -> float:
        """Audio seconds that are done, a mean of the channels; silence counts with the window after it, or with the last one."""
        finished = [index for index in range(len(self.windows)) if self._is_finished(index)]
        if len(finished) == len(self.windows):
            return self._length / SAMPLE_RATE
        done = 0
        for index in finished:
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
        unfinished = (start for index, (start, _) in enumerate(self.windows) if not self._is_finished(index))
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
        decoded = [decoded for index in range(len(self.windows)) for _, decoded in self._texts(index)]
        text = "".join(segment.text for segment in segments)
        if self._is_whole:
            main = max(decoded, key=_length_of_text)  # of the speaker who said most
            return Transcript(text, segments, main.language, main.language_probability)
        return Transcript(text, segments, self.language or "", self._certainty(), self._quality(decoded, segments))

    def _segments(self, indices: Iterable[int], *, words: bool = True) -> list[Segment]:
        """The segments of some windows at their times in the recording, sorted by time if there are several speakers."""
        texts = [text for index in indices for text in self._texts(index)]
        several = len({decoded.language for _, decoded in texts if decoded.segments}) > 1
        placed = [
            part if words else dataclasses.replace(part, words=None)
            for piece, decoded in texts
            for segment in decoded.segments
            for part in self._placed(segment, piece, decoded.language if several else None)
        ]
        is_mixed = self.speakers or (self._gaps is not None and self._gaps.filled)
        return sorted(placed, key=lambda segment: segment.start) if is_mixed else placed

    def _texts(self, index: int) -> list[tuple[Piece, DecodedWindow]]:
        """The texts of a window, in order."""
        return sorted(self._pieces[index], key=lambda text: text[0].start)

    def _placed(self, segment: Segment, piece: Piece, language: str | None) -> list[Segment]:
        channel, start = divmod(piece.start, self._length)
        end = self._length
        if language is not None:  # the model may place an end behind its audio, where another language begins
            end = min(end, start + piece.end - piece.start)
        placed = _moved(segment, start / SAMPLE_RATE, end / SAMPLE_RATE)
        placed = dataclasses.replace(placed, language=language)
        if self._attributions:
            return self._attributions[channel].split(placed)
        return [dataclasses.replace(placed, speaker=self.speakers[channel]) if self.speakers else placed]

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
            **self._gap_report(spoken),
        }

    def _gap_report(self, speech_seconds: float) -> dict[str, Any]:
        """What is missing or cannot be trusted, at its times in the recording."""
        if self._gaps is None:
            return {}
        found = [gap for index in range(len(self.windows)) for gap in self._gaps.find(index, self._timed(index))]
        seconds = sum(gap.end - gap.start for gap in found) / SAMPLE_RATE
        gaps = [
            {
                "from": round(gap.start % self._length / SAMPLE_RATE, 2),
                "to": round((gap.start % self._length + gap.end - gap.start) / SAMPLE_RATE, 2),
                "why": gap.why,
            }
            for gap in found
        ]
        return {
            "gaps": sorted(gaps, key=lambda gap: (gap["from"], gap["to"])),
            "gap_share": round(min(1.0, seconds / speech_seconds), 4) if speech_seconds else 0.0,
            "filled_gaps": self._gaps.filled,
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
