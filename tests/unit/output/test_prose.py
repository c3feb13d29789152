"""Sentences and paragraphs: what txt, md, docx and pages show."""

import pytest

from whisperd.core.options import OutputOptions
from whisperd.core.transcript import Segment, Transcript, Word
from whisperd.output.formats import render
from whisperd.output.prose import paragraphs, sentences

LONG = "This is a sentence of about sixty characters, more or less."


def talk(*segments, language="en"):
    """Segments from `(start, end, text)`, or `(start, end, text, speaker)`."""
    made = [Segment(start, end, f" {text}", speaker=next(iter(who), None)) for start, end, text, *who in segments]
    return Transcript("", tuple(made), language)


def texts(source):
    return [paragraph.text for paragraph in paragraphs(source, source.language)]


def txt(source, **changes):
    return render(source, OutputOptions(formats=("txt",), **changes))["txt"].decode()


def test_fragments_become_sentences():
    """A segment ends where the engine likes."""
    source = talk((0, 2, "What began as simple"), (2, 4, "omnibuses has evolved. And"), (4, 5, "so on."))

    assert [each.text for each in sentences(source, "en")] == [
        "What began as simple omnibuses has evolved.",
        "And so on.",
    ]
    assert txt(source) == "What began as simple omnibuses has evolved. And so on.\n"


def test_a_pause_ends_a_paragraph():
    """One of two seconds always, also within a sentence."""
    source = talk((0, 1, "One."), (2, 3, "Two."), (5, 6, "Three and"), (9, 10, "four."))

    assert texts(source) == ["One. Two.", "Three and", "four."]


def test_a_long_paragraph_ends_at_a_shorter_pause():
    """The longer it is, the shorter the pause that ends it; a very long one ends without any."""
    step = 4.0
    source = talk(*((step * n, step * n + 3.5, LONG) for n in range(12)), *((60 + n, 61 + n, LONG) for n in range(40)))

    found = texts(source)

    assert len(found) >= 4
    assert max(map(len, found)) <= 900 + len(LONG) + 1
    assert all(each.count(LONG) > 5 for each in found[1:-1])


def test_somebody_else_begins_a_paragraph():
    """With the name; a second paragraph of the same speaker has none."""
    source = talk((0, 1, "Hello.", "Ann"), (1, 2, "Hi.", "Bob"), (2, 3, "Well.", "Bob"), (9, 10, "Again.", "Bob"))

    assert txt(source) == "Ann: Hello.\n\nBob: Hi. Well.\n\nAgain.\n"


def test_two_who_speak_at_once_are_not_mixed():
    """Each finishes the sentence that they have begun, in the order in which these begin."""
    source = talk((0, 2, "I was about", "Ann"), (1, 2, "Yes.", "Bob"), (2, 4, "to go home.", "Ann"))

    assert txt(source) == "Ann: I was about to go home.\n\nBob: Yes.\n"


def test_a_heading_is_a_paragraph():
    """A text without a full stop, a pause, and a capital."""
    source = talk((0, 1, "We went."), (2, 3, "Decline and fall"), (4, 5, "The empire ended."))

    assert texts(source) == ["We went. Decline and fall", "The empire ended."]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. Miller came. He left.", 2),
        ("J. F. Kennedy spoke.", 1),
        ("It costs 3.50 dollars. Fine.", 2),
        ('He said: "Go." Then he left.', 2),
        ("Wait... what? Now!", 2),
        ("Das war z.B. Herr Meier. Ja.", 2),
        ("Comment ça va ? Bien !", 2),
        ("¿Qué? ¡Nada!", 2),
        ("今日は。明日は!", 2),
    ],
)
def test_where_sentences_end(text, count):
    """Not after an abbreviation, and not before a small letter."""
    assert len(list(sentences(talk((0, 5, text)), "en"))) == count


def test_a_speech_without_punctuation_does_not_become_one_line():
    """After 900 columns its sentence, and so its paragraph, ends with a segment."""
    source = talk(*((n, n + 1, "words and words and words and more") for n in range(100)))

    assert max(map(len, texts(source))) < 1000
    assert len(texts(source)) > 2


def test_chinese_segments_are_set_apart_where_they_have_no_comma():
    """And are not where they have one."""
    source = talk((0, 1, "自十九世纪以来"), (1, 2, "城市变化了。"), (2, 3, "后来好。"), language="zh")

    assert txt(source) == "自十九世纪以来 城市变化了。后来好。\n"


def test_paragraphs_have_times_on_request():
    """In hours, minutes and seconds."""
    source = talk((0, 1, "Hello.", "Ann"), (3700, 3701, "Hi.", "Bob"))

    assert txt(source, paragraph_times=True) == "[0:00] Ann: Hello.\n\n[1:01:40] Bob: Hi.\n"


def test_words_that_no_space_separates_stay_together():
    """The engine gives `horse` and `-drawn` as two words, and an apostrophe as a third."""
    words = tuple(Word(n, n + 1.0, text, 0.9) for n, text in enumerate([" horse", "-drawn", " cars", "'", " end."]))
    source = Transcript("", (Segment(0.0, 5.0, " horse-drawn cars' end.", words=words),), "en")

    assert [unit.text for each in sentences(source, "en") for unit in each.units] == ["horse-drawn", "cars'", "end."]
