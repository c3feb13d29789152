"""Systems are compared in rounds, and their word errors with those of jiwer."""

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bench import RECORDINGS, Fake

from whisperd.bench.comparison import (
    Spread,
    WordErrors,
    compare_systems,
    distance,
    figures_of,
    language_of,
    total_errors,
    word_errors,
)
from whisperd.core.errors import WhisperdError

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=12)


def test_systems_take_turns():
    """The first of one round is the last of the next."""
    journal = []
    systems = [Fake("a", [1, 1, 1], journal=journal), Fake("b", [1, 1, 1], journal=journal)]

    compare_systems(systems, RECORDINGS, 3, lambda _: None)

    assert journal == ["a", "b", "b", "a", "a", "b"]


def test_figures_are_of_rounds():
    """Speed with its spread, and ratios within each round, where both met the same machine."""
    ours, theirs = Fake("whisperd", [1.0, 2.0, 4.0]), Fake("other", [3.0, 4.0, 4.0], text="red")
    ran = compare_systems([ours, theirs], RECORDINGS, 3, lambda _: None)

    whisperd, other = figures_of(ran, RECORDINGS, None)

    assert whisperd.speed == Spread(5.0, 10.0, 20.0)
    assert whisperd.ahead is None
    assert other.ahead == Spread(1.0, 2.0, 3.0)
    assert (whisperd.errors.rate, other.errors.rate) == (25.0, 50.0)


def test_a_broken_peer_leaves_the_contest_and_says_why():
    """The others go on."""
    ran = compare_systems([Fake("whisperd", [1.0, 1.0]), Fake("other", [], broken=True)], RECORDINGS, 2, lambda _: None)

    assert list(ran.runs) == ["whisperd"]
    assert ran.broken == {"other": "other fell over"}


def test_without_whisperd_there_is_no_contest():
    """All others are compared with it."""
    with pytest.raises(WhisperdError, match="fell over"):
        compare_systems([Fake("whisperd", [], broken=True), Fake("other", [1.0])], RECORDINGS, 1, lambda _: None)


@pytest.mark.parametrize(
    ("heard", "language"),
    [(["fr", "en", "en"], "en"), (["fr", "en"], "fr"), (["", "it"], "it"), ([""], "")],
    ids=["most", "a tie", "one says nothing", "nobody says"],
)
def test_most_systems_decide_the_language(heard, language):
    """In which the texts are compared."""
    assert language_of(heard) == language


@given(WORDS, st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12))
def test_word_errors_are_those_of_jiwer(said, heard):
    """The fewest insertions, deletions and substitutions."""
    counted = jiwer.process_words(" ".join(said), " ".join(heard))

    assert distance(said, heard) == counted.substitutions + counted.deletions + counted.insertions


@pytest.mark.parametrize(
    ("reference", "text", "language", "expected"),
    [
        pytest.param(
            "Mr. Smith's colour, twenty one!", "mister smith's color 21", "en", (0, 5), id="English spellings"
        ),
        pytest.param("Où est-il ?", "ou est il", "fr", (1, 3), id="accents count"),
        pytest.param("こんにちは", "こんにちわ", "ja", (1, 5), id="characters without spaces"),
        pytest.param("red green", "", "en", (2, 2), id="nothing heard"),
    ],
)
def test_texts_are_compared_after_normalisation(reference, text, language, expected):
    """Case, punctuation and, in English, ways to write a number are no errors."""
    errors = word_errors(reference, text, language)

    assert (errors.wrong, errors.words) == expected


def test_long_recordings_count_for_more():
    """One error rate over all words, not the mean of rates."""
    both = total_errors([WordErrors(1, 1), WordErrors(0, 99)])

    assert both.rate == 1.0
    assert total_errors([]).rate is None
