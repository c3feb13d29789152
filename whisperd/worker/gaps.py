"""Finds gaps: speech without text, and text that cannot be trusted, so that nothing goes missing silently.

Each gap is decoded once more before it is called one: by itself, with more of the pauses around it, in the language that
is heard in it where none is set, and at the first temperature only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from whisperd.engine.api import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from whisperd.core.options import TranscribeOptions
    from whisperd.engine.api import DecodedWindow
    from whisperd.worker.languages import Part

LEAST_GAP_SAMPLES = round(1.5 * SAMPLE_RATE)  # of speech; times of segments are not more exact than this
NEAR_SAMPLES = SAMPLE_RATE  # gaps with a shorter pause between them are one
WIDER_SAMPLES = SAMPLE_RATE // 2
LONGEST_SAMPLES = 30 * SAMPLE_RATE  # that an engine takes
LEAST_PROBABILITY = 0.5  # of a language in which a gap gets text


@dataclass(frozen=True, slots=True)
class Gap:
    """A part of a recording without text that can be trusted.

    Attributes:
        start: in samples.
        end: in samples.
        why: `no_text`: the engine wrote nothing for this speech; `silence`: it took the speech for silence; `loop`: the text
            repeats itself; `doubtful`: the text failed the thresholds at every temperature.
    """

    start: int
    end: int
    why: str


@dataclass(slots=True, eq=False)
class GapSearch:
    """What is looked for in the windows of one recording, and which windows were decoded once more.

    Args:
        speech: of each window, start and end in samples of its parts with speech; none where no voice detection was made.
        options: of the job, for the thresholds.
    """

    speech: Sequence[tuple[Part, ...]]
    options: TranscribeOptions
    tried: set[int] = field(default_factory=set)  # windows without gaps, or whose gaps were decoded once more
    filled: int = 0  # gaps that got text

    def find(self, index: int, texts: Iterable[tuple[int, int, DecodedWindow]]) -> list[Gap]:
        """Find the gaps of a window.

        Args:
            index: number of the window.
            texts: start and end in samples of each of its pieces, in order, and its text.
        """
        speech = self.speech[index] if self.speech else ()
        gaps: list[Gap] = []
        covered: list[Part] = []
        for start, end, decoded in texts:
            if why := self._whole(decoded):
                if why != "silence" or _length(_within(speech, start, end)) >= LEAST_GAP_SAMPLES:
                    gaps.append(Gap(start, end, why))
                covered.append((start, end))
            covered += _spoken(start, decoded)
        gaps += [Gap(start, end, "no_text") for start, end in _uncovered(speech, covered)]
        return sorted(gaps, key=lambda gap: gap.start)

    def wider(self, gap: Gap, texts: Iterable[tuple[int, int, DecodedWindow]], limits: Part) -> Part:
        """Take some of the pauses around a gap with it, but nothing that has text.

        Args:
            gap: of a window.
            texts: of this window, as in `find`.
            limits: the end of the window before, and the start of the window after it, in samples.
        """
        spoken = [each for start, _, decoded in texts for each in _spoken(start, decoded)]
        earliest = max([limits[0], *(end for _, end in spoken if end <= gap.start)])
        latest = min([limits[1], *(start for start, _ in spoken if start >= gap.end)])
        room = max(0, LONGEST_SAMPLES - (gap.end - gap.start)) // 2
        before = min(WIDER_SAMPLES, room, max(0, gap.start - earliest))
        after = min(WIDER_SAMPLES, room, max(0, latest - gap.end))
        return gap.start - before, gap.end + after

    def is_filled(self, decoded: DecodedWindow) -> bool:
        """Whether a gap that was decoded once more has text that can be trusted."""
        threshold = self.options.no_speech_threshold
        sure = decoded.language_probability is None or decoded.language_probability >= LEAST_PROBABILITY
        heard = threshold is None or decoded.no_speech_prob <= threshold
        return bool(decoded.segments) and sure and heard and not self._whole(decoded)

    def _whole(self, decoded: DecodedWindow) -> str:
        """Say what is wrong with all of a text; empty if nothing is."""
        likely, repetitive = self.options.logprob_threshold, self.options.compression_ratio_threshold
        if decoded.silent:
            return "silence"
        if decoded.looped:
            return "loop"
        unlikely = likely is not None and decoded.avg_logprob < likely
        return "doubtful" if unlikely or (repetitive is not None and decoded.compression_ratio > repetitive) else ""


def once_more(options: TranscribeOptions) -> TranscribeOptions:
    """Return the options with which a gap is decoded: the higher temperatures were in vain already."""
    return options.model_copy(update={"temperature": options.temperature[:1]})


def _spoken(start: int, decoded: DecodedWindow) -> list[Part]:
    """Start and end in samples of the segments of a piece that starts there."""
    return [
        (start + round(segment.start * SAMPLE_RATE), start + round(segment.end * SAMPLE_RATE))
        for segment in decoded.segments
    ]


def _within(parts: Iterable[Part], start: int, end: int) -> list[Part]:
    cut = ((max(start, first), min(end, last)) for first, last in parts)
    return [(first, last) for first, last in cut if first < last]


def _length(parts: Iterable[Part]) -> int:
    return sum(end - start for start, end in parts)


def _uncovered(speech: Iterable[Part], covered: Iterable[Part]) -> list[Part]:
    """Start and end of what is left of speech without what is covered, where enough of it is close together."""
    left: list[Part] = []
    taken = sorted(covered)
    for start, end in speech:
        at = start
        for first, last in taken:
            if first > at:
                left += _within([(at, first)], start, end)
            at = max(at, last)
        left += _within([(at, end)], start, end)
    groups: list[list[Part]] = []
    for part in left:
        if groups and part[0] - groups[-1][-1][1] < NEAR_SAMPLES:
            groups[-1].append(part)
        else:
            groups.append([part])
    return [(group[0][0], group[-1][1]) for group in groups if _length(group) >= LEAST_GAP_SAMPLES]
