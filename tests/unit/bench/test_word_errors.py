"""Word error rates, compared with those of jiwer."""

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisperd.bench import word_errors

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=12)


@given(WORDS, st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12))
def test_word_errors_are_those_of_jiwer(said, heard):
    """The fewest insertions, deletions and substitutions."""
    counted = jiwer.process_words(" ".join(said), " ".join(heard))

    assert word_errors.distance(said, heard) == counted.substitutions + counted.deletions + counted.insertions


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
    errors = word_errors.compare(reference, text, language)

    assert (errors.wrong, errors.words) == expected


def test_long_recordings_count_for_more():
    """One error rate over all words, not the mean of rates."""
    both = word_errors.total([word_errors.Errors(1, 1), word_errors.Errors(0, 99)])

    assert both.rate == 1.0
    assert word_errors.total([]).rate is None
