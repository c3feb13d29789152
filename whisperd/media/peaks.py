"""How loud a recording is along its length: what a picture of it is drawn from."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

BARS = 240
_BLOCKS, _BLOCK = 8, 1024  # samples looked at for each bar: a long recording costs no more than a short one
_SHAPE = 0.6  # of the curve from sound to height: quiet speech is to be seen beside loud speech


def peaks(samples: npt.NDArray[np.int16]) -> tuple[int, ...]:
    """The height of each of `BARS` bars, 0-100, the loudest 100; none where nothing is to be heard."""
    edges = np.linspace(0, len(samples), BARS + 1).astype(np.int64)
    heights = np.array([_loudness(samples[start:end]) for start, end in itertools.pairwise(edges)])
    loudest = heights.max()
    if not loudest:
        return ()
    return tuple(np.rint(100 * (heights / loudest) ** _SHAPE).astype(int).tolist())


def _loudness(samples: npt.NDArray[np.int16]) -> float:
    """Root mean square, of a part of them where there are many."""
    if not len(samples):
        return 0.0
    if len(samples) > _BLOCKS * _BLOCK:
        starts = np.linspace(0, len(samples) - _BLOCK, _BLOCKS).astype(np.int64)
        samples = np.concatenate([samples[start : start + _BLOCK] for start in starts])
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
