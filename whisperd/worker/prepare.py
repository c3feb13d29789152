"""From a recording to the windows that a model can decode one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd.job import Phase
from whisperd.speech.windows import everything, windows
from whisperd.worker.steps import load

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from whisperd.messages import Work
    from whisperd.speech.media import Decoded
    from whisperd.speech.vad import Detector


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A recording that can be transcribed.

    Attributes:
        samples: shape (samples,), 16 kHz mono; a memory map, so that a long recording needs no more memory.
        windows: start and end in samples.
    """

    decoded: Decoded
    samples: npt.NDArray[np.int16]
    windows: list[tuple[int, int]]


def prepare(work: Work, detector: Detector, report: Callable[[Phase], None]) -> Prepared:
    """Decode the recording, find the speech in it, and cut that into windows.

    Raises:
        JobError: the recording is at fault.
        SpoolFull: no room for its samples.
    """
    decoded, samples = load(work, report)
    vad = work.options.vad

    def beat(_: float) -> None:
        report(Phase.DECODING)

    regions = detector.detect(samples, vad, beat) if vad else everything(samples, beat)
    return Prepared(decoded, samples, [(window.start_sample, window.end_sample) for window in windows(regions)])
