"""Loudness along a recording, for its picture."""

import numpy as np
import pytest

from whisperd.worker.render import BARS, peaks


def test_the_loudest_part_is_full_and_silence_is_nothing():
    """Half silence, half tone."""
    tone = (10_000 * np.sin(np.arange(160_000) / 10)).astype(np.int16)

    heights = peaks(np.concatenate([np.zeros_like(tone), tone]))

    assert len(heights) == BARS
    assert set(heights[: BARS // 2]) == {0}
    assert min(heights[BARS // 2 :]) > 95
    assert max(heights) == 100


@pytest.mark.parametrize("samples", [[], [0], [0] * 5000])
def test_nothing_to_hear_has_no_heights(samples):
    """The picture then shows where somebody speaks."""
    assert peaks(np.array(samples, np.int16)) == ()


@pytest.mark.parametrize("samples", [[-32768], [1, -1, 5], [-32768] * 300])
def test_few_samples_and_the_lowest_one_do_not_overflow(samples):
    """The square of -32768 does not fit into 16 bits."""
    heights = peaks(np.array(samples, np.int16))

    assert len(heights) == BARS
    assert max(heights) == 100
    assert min(heights) >= 0
