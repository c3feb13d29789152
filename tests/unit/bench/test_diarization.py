"""The diarization error rate, on cases that are counted by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from whisperd.bench.diarization import _best_mapping, read_rttm, score

REFERENCE = [(0.0, 10.0, "A"), (10.0, 20.0, "B")]


def seconds(error):
    return tuple(round(value, 2) for value in (error.speech, error.missed, error.false_alarm, error.confusion))


def test_names_do_not_matter():
    """Any names that are one to one with the right ones are right."""
    assert score(REFERENCE, [(0.0, 10.0, "x"), (10.0, 20.0, "A")]).rate == 0.0


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param([(0.0, 10.0, "x")], (20.0, 10.0, 0.0, 0.0), id="missed"),
        pytest.param([*REFERENCE, (20.0, 25.0, "A")], (20.0, 0.0, 5.0, 0.0), id="false alarm"),
        pytest.param([(0.0, 20.0, "x")], (20.0, 0.0, 0.0, 10.0), id="confusion"),
        pytest.param([(0.0, 12.0, "x"), (10.0, 20.0, "y")], (20.0, 0.0, 2.0, 0.0), id="overlap that is not there"),
        pytest.param([], (20.0, 20.0, 0.0, 0.0), id="nothing"),
    ],
)
def test_each_kind_of_error_is_counted(found, expected):
    """In seconds of speech, each person counted."""
    assert seconds(score(REFERENCE, found)) == expected


def test_overlap_counts_twice():
    """Two people who speak at once are two times speech; one of them is missed."""
    assert seconds(score([(0.0, 10.0, "A"), (5.0, 10.0, "B")], [(0.0, 10.0, "A")])) == (15.0, 5.0, 0.0, 0.0)


def test_the_collar_is_on_both_sides_of_each_boundary_of_the_reference():
    """At 0, 10 (twice) and 20 s: 0.25 s, 0.5 s and 0.25 s are not compared."""
    shifted = [(0.2, 9.8, "A"), (9.8, 20.2, "B")]

    assert score(REFERENCE, shifted).rate == pytest.approx(0.6 / 20)
    assert seconds(score(REFERENCE, shifted, collar=0.25)) == (19.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("seed", range(20))
def test_the_mapping_is_the_best_of_all(seed):
    """Compared with every permutation."""
    rng = np.random.default_rng(seed)
    shared = rng.integers(0, 100, size=rng.integers(1, 6, size=2))
    wide = shared if shared.shape[0] <= shared.shape[1] else shared.T
    best = max(
        sum(wide[row, column] for row, column in enumerate(columns))
        for columns in itertools.permutations(range(wide.shape[1]), wide.shape[0])
    )

    assert _best_mapping(shared) == best


def test_a_file_of_turns_is_read(tmp_path):
    """NIST's format; lines of other kinds do not count."""
    path = tmp_path / "a.rttm"
    path.write_text("SPKR-INFO a 1 <NA> <NA> <NA> unknown Ann <NA>\nSPEAKER a 1 1.5 2.25 <NA> <NA> Ann <NA> <NA>\n\n")

    assert read_rttm(path) == [(1.5, 3.75, "Ann")]


def test_a_line_that_is_not_of_the_format_is_named(tmp_path):
    """With its number."""
    path = tmp_path / "a.rttm"
    path.write_text("SPEAKER a 1 0 1 <NA> <NA> Ann <NA> <NA>\nSPEAKER a 1 zero 1\n")

    with pytest.raises(ValueError, match="line 2: not a line of RTTM"):
        read_rttm(path)
