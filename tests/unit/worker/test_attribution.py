"""Who spoke a text: turns joined to words and segments."""

from __future__ import annotations

import pytest

from whisperd.core.transcript import Segment, Turn, Word
from whisperd.worker.attribution import Attribution

TWO = [Turn(0.0, 2.0, 0), Turn(2.0, 4.0, 1), Turn(4.5, 6.0, 0)]


def said(*words):
    """A segment of `(start, end, text)`."""
    words = tuple(Word(start, end, f" {text}", 0.9) for start, end, text in words)
    text = "".join(word.text for word in words)
    return Segment(words[0].start, words[-1].end, text, tokens=(1, 2), words=words)


def parts(segment, turns=TWO, channel=None):
    return [(part.speaker, part.text.strip()) for part in Attribution(turns, channel).split(segment)]


def test_a_segment_of_two_people_is_divided_between_words():
    """Each part has its own times and words, and nothing is lost."""
    segment = said((0.5, 1.0, "Are"), (1.0, 1.8, "you?"), (2.1, 2.6, "Yes,"), (2.6, 3.5, "I am."))

    one, two = Attribution(TWO).split(segment)

    assert (one.speaker, one.start, one.end, one.text) == ("Speaker 1", 0.5, 1.8, " Are you?")
    assert (two.speaker, two.start, two.end, two.text) == ("Speaker 2", 2.1, 3.5, " Yes, I am.")
    assert one.words + two.words == segment.words
    assert one.tokens == two.tokens == ()


def test_a_sentence_is_not_torn_for_one_word():
    """A turn that begins a little early takes no word of the sentence before."""
    segment = said((0.0, 0.9, "This"), (1.0, 1.5, "is"), (1.6, 1.9, "one"), (2.0, 2.3, "sentence."))

    assert parts(segment) == [("Speaker 1", "This is one sentence.")]


def test_a_word_that_begins_a_sentence_goes_to_what_follows():
    """A turn that ends a little late takes no first word of the answer."""
    segment = said((0.0, 0.9, "Are"), (1.0, 1.4, "you?"), (1.5, 2.0, "I"), (2.0, 2.4, "am"), (2.5, 3.0, "not."))
    turns = [Turn(0.0, 1.4, 0), Turn(1.4, 2.0, 2), Turn(2.0, 4.0, 1)]

    assert parts(segment, turns) == [("Speaker 1", "Are you?"), ("Speaker 2", "I am not.")]


def test_a_sentence_of_one_word_is_somebody_s_own():
    """An answer of one word stays an answer."""
    segment = said((0.0, 0.9, "Are"), (1.0, 1.8, "you?"), (2.1, 2.6, "Yes."), (4.6, 5.0, "Good"), (5.0, 5.5, "then."))

    assert parts(segment) == [("Speaker 1", "Are you?"), ("Speaker 2", "Yes."), ("Speaker 1", "Good then.")]


def test_without_words_a_segment_is_of_whom_most_of_it_is():
    """The whole segment has one name, and keeps its tokens."""
    (part,) = Attribution(TWO).split(Segment(1.5, 3.5, " Hm. Yes, I am.", tokens=(1, 2)))

    assert (part.speaker, part.text, part.tokens) == ("Speaker 2", " Hm. Yes, I am.", (1, 2))


@pytest.mark.parametrize(
    ("start", "end", "speaker"),
    [(4.05, 4.2, "Speaker 2"), (4.3, 4.45, "Speaker 1"), (9.0, 9.5, "Speaker 1")],
)
def test_text_outside_of_all_turns_goes_to_the_nearest(start, end, speaker):
    """Diarization misses the ends of words; no text is without a name for it."""
    assert parts(Segment(start, end, "x")) == [(speaker, "x")]


def test_a_long_turn_is_found_behind_many_short_ones():
    """Somebody who talks all the time, interrupted often, is still there in the end."""
    turns = sorted([Turn(0.0, 100.0, 0), *(Turn(at, at + 0.2, 1) for at in range(1, 90))])

    assert parts(Segment(95.0, 96.0, "x"), turns) == [("Speaker 1", "x")]


def test_no_turns_give_no_names():
    """Music may have text, but nobody speaks."""
    assert parts(Segment(0.0, 1.0, "x"), []) == [(None, "x")]


def test_people_of_one_channel_are_numbered_only_if_there_are_several():
    """The channel's own name is exact where one person uses it."""
    segment = Segment(2.5, 3.5, "x")

    assert parts(segment, TWO, "Agent") == [("Agent (2)", "x")]
    assert parts(segment, [Turn(0.0, 4.0, 0)], "Agent") == [("Agent", "x")]
    assert parts(segment, [], "Agent") == [("Agent", "x")]


def test_a_known_voice_has_its_name_and_the_others_keep_their_numbers():
    """Also where the channel has a name, and one person uses it."""
    known = {1: "Anna"}

    assert [Attribution(TWO, None, known).split(Segment(at, at + 1.0, "x"))[0].speaker for at in (0.5, 2.5)] == [
        "Speaker 1",
        "Anna",
    ]
    assert [Attribution(TWO, "Agent", known).split(Segment(at, at + 1.0, "x"))[0].speaker for at in (0.5, 2.5)] == [
        "Agent (1)",
        "Anna",
    ]
    (part,) = Attribution([Turn(0.0, 4.0, 0)], "Agent", {0: "Anna"}).split(Segment(1.0, 2.0, "x"))
    assert part.speaker == "Anna"
