"""Groups regions of speech into windows of at most 30 s, cut where nobody speaks.

::

    regions = detector.detect(audio, options, report)   # voice detection on, see `whisperd.media.vad`
    regions = everything(audio, report)                 # voice detection off
    for window in windows(regions):
        decode(audio[window.start_sample : window.end_sample])

Everything is lazy: the first windows come while the rest of the recording has not been read.
The audio between the regions of a window is part of the window, so that times are those of the recording.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from whisperd.media.ffmpeg import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy.typing as npt

FRAME_SAMPLES = 512  # 32 ms
PIECE_FRAMES = 256  # read at once: 8.2 s
MAX_SECONDS = 29.0  # Whisper hears 30 s; the last second is silence, which tells it that the text ends there
MAX_PAUSE_SECONDS = 4.0  # more silence than this is left out, not decoded
LEAST_PART_SECONDS = 1.5  # in less than this, the language is hard to tell
LONGEST_PART_SECONDS = 10.0
DIP_FRAMES = 6  # a pause between words is about 0.2 s long

# A cut is made once this many times the longest window is known, so that what remains is never a scrap.
DECIDED = 1.75


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the audio in which somebody may be speaking: samples `[start_sample, end_sample)`."""

    start_sample: int
    end_sample: int


@dataclass(frozen=True, slots=True)
class Window:
    """Neighbouring regions to be decoded together, with the audio between them."""

    regions: tuple[Region, ...]

    @property
    def start_sample(self) -> int:
        """Where its first region starts."""
        return self.regions[0].start_sample

    @property
    def end_sample(self) -> int:
        """Where its last region ends."""
        return self.regions[-1].end_sample


def windows(
    regions: Iterable[Region], *, max_seconds: float = MAX_SECONDS, max_pause_seconds: float = MAX_PAUSE_SECONDS
) -> Iterator[Window]:
    """Group regions into windows, each region whole and in one window.

    A window ends at the longest pause in its last quarter; the last two windows before a long pause are of similar length.

    Args:
        regions: in order, disjoint, none longer than `max_seconds`.
        max_seconds: from the start of a window's first region to the end of its last.
        max_pause_seconds: a pause longer than this always ends a window.

    Raises:
        ValueError: a region is too long.
    """
    longest = round(max_seconds * SAMPLE_RATE)
    group: list[Region] = []
    for region in regions:
        if region.end_sample - region.start_sample > longest:
            raise ValueError(f"{region} is longer than {max_seconds} s")
        if group and region.start_sample - group[-1].end_sample > max_pause_seconds * SAMPLE_RATE:
            yield from _split(group, longest, 0)
        group.append(region)
        yield from _split(group, longest, DECIDED * longest)
    yield from _split(group, longest, 0)


def everything(
    audio: npt.NDArray[np.int16], report: Callable[[float], None], *, max_seconds: float = MAX_SECONDS
) -> Iterator[Region]:
    """Make regions that cover all of the audio, cut where it is quietest.

    Args:
        audio: shape (samples,), 16 kHz mono; may be a memory map, it is read piece by piece.
        report: called with the seconds read so far; what it raises passes through.
        max_seconds: the longest region.
    """
    frames = UncutFrames(0, int(max_seconds * SAMPLE_RATE) // FRAME_SAMPLES)
    for first in range(0, len(audio), PIECE_FRAMES * FRAME_SAMPLES):
        piece = np.abs(audio[first : first + PIECE_FRAMES * FRAME_SAMPLES].astype(np.int32))
        frames.activity += np.add.reduceat(piece, range(0, len(piece), FRAME_SAMPLES)).tolist()
        yield from _regions(frames.cut(ended=False))
        report((first + len(piece)) / SAMPLE_RATE)
    yield from _regions(frames.cut(ended=True))
    if len(audio):
        yield Region(frames.start * FRAME_SAMPLES, len(audio))


def parts(window: Window, audio: npt.NDArray[np.int16]) -> list[tuple[int, int]]:
    """Divide a window into short parts that each may be of one language: start and end in samples, in order.

    Regions that are too short are joined to the next one, and long ones are cut where it is quietest.

    Args:
        window: of this audio.
        audio: shape (samples,), 16 kHz mono.
    """
    divided: list[tuple[int, int]] = []
    for region in window.regions:
        first, after = region.start_sample, region.end_sample
        pieces = [Region(0, after - first)]
        if after - first > LONGEST_PART_SECONDS * SAMPLE_RATE:
            pieces = list(everything(audio[first:after], lambda _: None, max_seconds=LONGEST_PART_SECONDS))
        for piece in pieces:
            start, end = first + piece.start_sample, first + piece.end_sample
            if divided and divided[-1][1] - divided[-1][0] < LEAST_PART_SECONDS * SAMPLE_RATE:
                divided[-1] = (divided[-1][0], end)
            else:
                divided.append((start, end))
    if len(divided) > 1 and divided[-1][1] - divided[-1][0] < LEAST_PART_SECONDS * SAMPLE_RATE:
        (start, _), (_, end) = divided[-2:]
        divided[-2:] = [(start, end)]
    return divided


def seconds_outside(parts: Iterable[Region | Window], total_samples: int) -> float:
    """Sum up the audio that is in none of these regions or windows."""
    return (total_samples - sum(part.end_sample - part.start_sample for part in parts)) / SAMPLE_RATE


@dataclass(slots=True)
class UncutFrames:
    """Consecutive frames, which are cut where they are least active once they are too many for one window.

    Attributes:
        start: number of its first frame.
        longest: frames of a window.
        activity: of each frame, in any unit: a probability of speech, an amplitude.
    """

    start: int
    longest: int
    activity: list[float] = field(default_factory=list)

    def cut(self, length: int | None = None, *, ended: bool) -> Iterator[tuple[int, int]]:
        """Take parts off the front, as `(first frame, first frame after)`.

        Args:
            length: frames that are sure to belong to it; None: all.
            ended: nothing will follow: cut until the rest fits. Otherwise only where what follows does not matter.
        """
        length = len(self.activity) if length is None else length
        while length > self.longest if ended else length >= DECIDED * self.longest:
            size = quietest(self.activity[:length], self.longest)
            yield self.start, self.start + size
            self.start += size
            del self.activity[:size]
            length -= size


def quietest(activity: Sequence[float], longest: int) -> int:
    """Choose how many frames to cut off the front: the cut is in the deepest dip, and no part is a scrap."""
    around = np.pad(np.asarray(activity, dtype=np.float64), DIP_FRAMES // 2, mode="edge")
    dips = np.lib.stride_tricks.sliding_window_view(around, DIP_FRAMES).mean(axis=1)
    earliest, latest = _cut_between(len(activity), longest)
    # the last of equals, so that windows of pure silence are long
    return latest - int(np.argmin(dips[earliest : latest + 1][::-1]))


def _cut_between(length: int, longest: int) -> tuple[int, int]:
    """The earliest and latest place of a cut; independent of the length once that is `DECIDED` times the longest."""
    earliest = min((DECIDED - 1) * longest, max(length / 3, length - longest))
    return math.ceil(earliest), int(min(longest, length * 2 / 3))


def _split(group: list[Region], longest: int, limit: float) -> Iterator[Window]:
    """Take windows off the front of a group of regions while the group is at least as long as the limit."""
    while group and group[-1].end_sample - group[0].start_sample >= limit:
        size = _last_fitting(group, longest)
        yield Window(tuple(group[:size]))
        del group[:size]


def _last_fitting(group: Sequence[Region], longest: int) -> int:
    start, length = group[0].start_sample, group[-1].end_sample - group[0].start_sample
    if length <= longest:
        return len(group)
    earliest, latest = _cut_between(length, longest)
    pauses = [(after.start_sample - before.end_sample) for before, after in itertools.pairwise(group)]
    fitting = [size for size in range(1, len(group)) if group[size - 1].end_sample - start <= longest]
    well = [size for size in fitting if earliest <= group[size - 1].end_sample - start <= latest]
    return max(well, key=lambda size: (pauses[size - 1], size)) if well else fitting[-1]


def _regions(parts: Iterable[tuple[int, int]]) -> Iterator[Region]:
    return (Region(first * FRAME_SAMPLES, after * FRAME_SAMPLES) for first, after in parts)
