"""From a recording to the windows that a model can decode one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd.core.job import Phase
from whisperd.media.windows import everything, windows
from whisperd.worker.channels import tracks
from whisperd.worker.steps import load

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from whisperd.media.decode import Decoded
    from whisperd.media.vad import Detector
    from whisperd.protocol import Work


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A recording that can be transcribed.

    Attributes:
        samples: shape (samples,), 16 kHz mono, or (frames, channels) where channels are speakers; a memory map, so that
            a long recording needs no more memory.
        windows: start and end in samples, as if the channels came one after the other.
    """

    decoded: Decoded
    samples: npt.NDArray[np.int16]
    windows: list[tuple[int, int]]

    def cut(self, start: int, end: int) -> npt.NDArray[np.int16]:
        """The samples of a window."""
        channel, start_there = divmod(start, len(self.samples))
        return tracks(self.samples)[channel][start_there : start_there + end - start]


def prepare(work: Work, detector: Detector, report: Callable[[Phase], None]) -> Prepared:
    """Decode the recording, find the speech in it, and cut that into windows.

    Raises:
        JobError: the recording is at fault.
        SpoolFull: no room for its samples.
    """
    decoded, samples = load(work, report)
    vad = work.spec.vad

    def beat(_: float) -> None:
        report(Phase.DECODING)

    found = []
    for channel, track in enumerate(tracks(samples)):
        regions = detector.detect(track, vad, beat) if vad.enabled else everything(track, beat)
        offset = channel * len(track)
        found += [(offset + window.start_sample, offset + window.end_sample) for window in windows(regions)]
    return Prepared(decoded, samples, found)
