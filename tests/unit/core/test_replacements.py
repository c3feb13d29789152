"""Which words are replaced, what becomes of their times, and which replacements are refused."""

import pytest

from whisperd.core import replacements
from whisperd.core.replacements import TEXT_MAX, correct, problem
from whisperd.core.transcript import RecordedText, Replaced, Segment, Transcript, Word


def spoken(*texts, start=0.0):
    """A segment of words of half a second, each less sure than the one before."""
    words = tuple(Word(start + i / 2, start + (i + 1) / 2, text, 0.9 - i / 10) for i, text in enumerate(texts))
    return Segment(start, words[-1].end, "".join(texts), words=words)


def transcript(*segments):
    return Transcript("".join(segment.text for segment in segments), segments, "en")


def replaced(text, **changes):
    """What becomes of a text without words."""
    return correct(transcript(Segment(0.0, 1.0, text)), changes).text


def times(segment):
    return [(word.text, word.start, word.end) for word in segment.words]


@pytest.mark.parametrize(
    ("text", "wrong", "right", "expected"),
    [
        (" Mayer and Mayers, (Mayer)", "Mayer", "Meyer", " Meyer and Mayers, (Meyer)"),
        (" mayer Mayer", "Mayer", "Meyer", " mayer Meyer"),
        (" 私は東京に行く", "東京", "京都", " 私は京都に行く"),
        (" 서울에서 왔다", "서울", "부산", " 부산에서 왔다"),
        (" So, um, yes. Um.", "um,", "", " So, yes. Um."),
        (" C++ is C", "C++", "Rust", " Rust is C"),
        (" a.b axb", "a.b", "x", " x axb"),
        (" colour and color", "/colou?r/", "hue", " hue and hue"),
        (" room 12 b", r"/room (\d+) (\w)/", r"\2\1", " b12"),
        (" back\\slash", "back\\slash", r"\1", r" \1"),
        (" A/B", "/", "-", " A-B"),
    ],
)
def test_what_is_found(text, wrong, right, expected):
    """A literal is a whole word where words have spaces, letter by letter; a pattern is what its syntax says."""
    assert problem(wrong, right) is None
    assert correct(transcript(Segment(0.0, 1.0, text)), {wrong: right}).text == expected


def test_replacements_are_made_in_order_and_counted():
    """Each sees what the one before has left, and the report says how often each was made."""
    source = transcript(spoken(" one", " two"), spoken(" two", start=5.0))

    result = correct(source, {"two": "three", "three": "four", "five": "six"})

    assert [segment.text for segment in result.segments] == [" one four", " four"]
    assert result.text == " one four four"
    assert result.replacements == (
        Replaced("two", "three", 2),
        Replaced("three", "four", 2),
        Replaced("five", "six", 0),
    )


@pytest.mark.parametrize(
    ("wrong", "right", "expected"),
    [
        ("Mayer,", "Meyer,", [(" Dr.", 0.0, 0.5), (" Meyer,", 0.5, 1.0), (" says", 1.0, 1.5)]),
        ("Dr. Mayer", "Prof. Meyer", [(" Prof.", 0.0, 0.5), (" Meyer,", 0.5, 1.0), (" says", 1.0, 1.5)]),
        ("Dr. Mayer", "Meyer", [(" Meyer,", 0.0, 1.0), (" says", 1.0, 1.5)]),
        ("says", "he said", [(" Dr.", 0.0, 0.5), (" Mayer,", 0.5, 1.0), (" he said", 1.0, 1.5)]),
        ("says", "", [(" Dr.", 0.0, 0.5), (" Mayer,", 0.5, 1.0)]),
        ("/[Mr]/", "n", [(" Dn.", 0.0, 0.5), (" nayen,", 0.5, 1.0), (" says", 1.0, 1.5)]),
        ("/. M|r,/", "x", [(" Drxayex", 0.0, 1.0), (" says", 1.0, 1.5)]),
    ],
)
def test_words_keep_their_times(wrong, right, expected):
    """As many words as before have the times of those; more or fewer have the times of all that they replace."""
    (segment,) = correct(transcript(spoken(" Dr.", " Mayer,", " says")), {wrong: right}).segments

    assert times(segment) == expected
    assert "".join(word.text for word in segment.words) == segment.text
    assert (segment.start, segment.end) == (0.0, 1.5)


def test_joined_words_are_as_sure_as_the_least_sure():
    """What was in doubt stays in doubt."""
    (segment,) = correct(transcript(spoken(" Open", " AI")), {"Open AI": "OpenAI"}).segments

    assert [word.probability for word in segment.words] == [pytest.approx(0.8)]


def test_a_changed_segment_keeps_what_was_recorded():
    """So that a wrong replacement can be taken back; other segments are the same objects as before."""
    source = transcript(spoken(" Mayer"), spoken(" yes", start=5.0))

    changed, same = correct(source, {"Mayer": "Meyer"}).segments

    assert changed.recorded == RecordedText(" Mayer", source.segments[0].words)
    assert same is source.segments[1]


def test_without_replacements_nothing_is_touched():
    """The usual case costs nothing."""
    source = transcript(spoken(" yes"))

    assert correct(source, {}) is source


@pytest.mark.parametrize(
    ("wrong", "right", "reason"),
    [
        ("", "x", "is empty"),
        (" ", "x", "is empty"),
        ("//", "x", "is empty"),
        ("x" * (TEXT_MAX + 1), "x", f"more than {TEXT_MAX} characters"),
        ("x", "x" * (TEXT_MAX + 1), f"more than {TEXT_MAX} characters"),
        ("a\nb", "x", "line breaks"),
        ("a", "b\x1b[2J", "control characters"),
        ("/(/", "x", "the pattern is wrong: missing )"),
        ("/a(b)/", r"\2", "the pattern is wrong: invalid group reference"),
        ("/a/", r"\g<x>", "the pattern is wrong: unknown group"),
        ("/x*/", "y", "matches where nothing is written"),
    ],
)
def test_a_replacement_that_cannot_be_made_is_refused(wrong, right, reason):
    """Before any work, with the reason."""
    assert reason in problem(wrong, right)


def test_a_pattern_that_never_ends_is_given_up(monkeypatch):
    """The transcript stays as it was recorded, the report says so, and other replacements are made."""
    monkeypatch.setattr(replacements, "PATTERN_SECONDS", 0.05)
    source = transcript(spoken(" " + "a" * 200 + "b", " Mayer"), spoken(" aa", start=5.0))

    result = correct(source, {r"/(a|aa)+$/": "x", "Mayer": "Meyer"})

    assert [segment.text for segment in result.segments] == [" " + "a" * 200 + "b Meyer", " aa"]
    assert result.replacements == (
        Replaced(r"/(a|aa)+$/", "x", 0, is_complete=False),
        Replaced("Mayer", "Meyer", 1),
    )


def test_a_right_text_that_names_no_group_is_given_up():
    """Where a pattern hides that from the check, the transcript stays as it was recorded."""
    assert problem(hidden := "/(?x)a #/", r"\3") is None

    assert replaced(" a", **{hidden: r"\3"}) == " a"


def test_all_patterns_share_a_time(monkeypatch):
    """Hundreds of bad ones do not keep a worker for long; each says that it was not tried everywhere."""
    monkeypatch.setattr(replacements, "PATTERN_SECONDS", 0.05)
    monkeypatch.setattr(replacements, "TOTAL_SECONDS", 0.1)
    source = transcript(spoken(" " + "a" * 200 + "b"))

    result = correct(source, {rf"/(a|aa){{{number},}}$/": "x" for number in range(1, 51)} | {"b": "c"})

    assert result.segments == source.segments
    assert [each.is_complete for each in result.replacements] == [False] * 50 + [True]
