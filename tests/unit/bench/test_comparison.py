"""Systems are compared in rounds."""

import pytest
from support.bench import RECORDINGS, Fake

from whisperd.bench.comparison import Spread, compare_systems, figures_of, language_of
from whisperd.core.errors import WhisperdError


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
