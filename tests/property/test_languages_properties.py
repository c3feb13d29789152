"""Properties of the choice of languages: for any parts and any probabilities."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from whisperd.engine.api import SAMPLE_RATE
from whisperd.media.windows import LEAST_PART_SECONDS, Region, Window
from whisperd.media.windows import parts as parts_of
from whisperd.worker.languages import SWITCH_SECONDS, grouped, spoken

CODES = ("en", "fr", "de")
LENGTHS = st.integers(1, 200).map(lambda tenths: tenths * SAMPLE_RATE // 10)
CHANCES = st.tuples(*[st.integers(0, 100)] * 3).map(
    lambda weights: {code: weight / max(1, sum(weights)) for code, weight in zip(CODES, weights, strict=True)}
)
PARTS = st.lists(st.tuples(LENGTHS, CHANCES), max_size=6).map(
    lambda heard: [
        ((end - length, end), chances)
        for (length, chances), end in zip(heard, itertools.accumulate(length for length, _ in heard), strict=True)
    ]
)


def worth(parts, chosen, main):
    changes = sum(before != after for before, after in itertools.pairwise([main, *chosen, main]))
    heard = sum(
        (end - start) / SAMPLE_RATE * chances[code] for ((start, end), chances), code in zip(parts, chosen, strict=True)
    )
    return heard - SWITCH_SECONDS * changes


@settings(max_examples=150, deadline=None)
@given(PARTS, st.sampled_from(CODES))
def test_no_other_choice_is_worth_more(parts, main):
    """But for the main language, which is taken where no other is sure: that may be worth less."""
    chosen = spoken(parts, main)
    best = max(worth(parts, choice, main) for choice in itertools.product(CODES, repeat=len(parts)))

    assert len(chosen) == len(parts)
    if worth(parts, chosen, main) < best - 1e-6:
        assert main in chosen


@settings(max_examples=150, deadline=None)
@given(PARTS, st.sampled_from(CODES))
def test_a_little_of_another_language_changes_nothing(parts, main):
    """Less of it than two changes cost is worth no change, wherever it is and however sure."""
    others = sum(end - start for (start, end), chances in parts if max(chances.values()) > chances[main])
    if others < 2 * SWITCH_SECONDS * SAMPLE_RATE:
        assert set(spoken(parts, main)) <= {main}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(LENGTHS, st.integers(1, 3 * SAMPLE_RATE)), min_size=1, max_size=8))
def test_parts_and_groups_leave_nothing_out(regions):
    """Each region is in one part, and each part in one group; parts are not too short, unless there is only one."""
    at, placed = 0, []
    for length, pause in regions:
        placed.append(Region(at, at + length))
        at += length + pause
    divided = parts_of(Window(tuple(placed)), np.zeros(at, np.int16))
    groups = grouped(divided)

    for cut, pieces in ((divided, placed), (groups, [Region(*part) for part in divided])):
        assert cut[0][0] == 0
        assert cut[-1][1] == placed[-1].end_sample
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(cut))
        covered = sum(1 for start, end in cut for piece in pieces if start <= piece.start_sample < end)
        assert covered == len(pieces)
    assert len(divided) == 1 or min(end - start for start, end in divided) >= LEAST_PART_SECONDS * SAMPLE_RATE * 0.99
