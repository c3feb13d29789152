"""Readable subtitles: what one can read in the time, in lines that break where a sentence does."""

import itertools
import subprocess
from dataclasses import replace

import imageio_ffmpeg
import pysubs2
import pytest
import webvtt
from support.pages import words

from whisperd.core.options import OutputOptions
from whisperd.core.transcript import About, Segment, Transcript, Word
from whisperd.output.formats import render
from whisperd.output.units import columns

SPEECH = (
    "The history of urban public transportation. Urban public transportation has undergone remarkable transformations "
    "since its earliest forms in the 19th century. What began as simple horse-drawn omnibuses has evolved into "
    "sophisticated networks of subways, light rail systems, and electric buses that move millions of people daily."
)
FRENCH = (
    "Le mariage de Catherine de Médicis, avec le futur Roi Henri II, introduisit de nombreuses innovations culinaires "
    "venues d'Italie. Les légumes du nouveau monde, notamment la tomate, le haricot et la pomme de terre, s'intégrèrent "
    "progressivement dans l'alimentation française."
)
JAPANESE = (
    "今日はとても天気がいいので、友達と一緒に公園へ散歩に行きました。公園にはたくさんの人がいて、"
    "子供たちが楽しそうに遊んでいました。"
)


def said(text, start=0.0, speed=15.0, *, timed=False, speaker=None):
    """A segment that is spoken at a speed in columns a second."""
    end = start + columns(text) / speed
    return Segment(start, end, f" {text}", words=words(text, start, end) if timed else None, speaker=speaker)


def transcript(*segments, language="en"):
    return Transcript("", segments, language)


def cues(source, name="srt", about=None, **changes):
    """The cues as pysubs2 reads them: start, end, lines."""
    options = OutputOptions(formats=(name,), **changes)
    content = render(source, options, about or About())[name].decode()
    read = pysubs2.SSAFile.from_string(content, format_=name, keep_html_tags=True)
    return [(cue.start, cue.end, cue.text.split(r"\N")) for cue in read]


def lines(source, **changes):
    return [line for _start, _end, shown in cues(source, **changes) for line in shown]


@pytest.mark.parametrize("timed", [False, True], ids=["segments", "words"])
@pytest.mark.parametrize(("text", "language"), [(SPEECH, "en"), (FRENCH, "fr")])
def test_a_speech_becomes_two_lines_of_42_that_one_can_read(text, language, timed):
    """The limits of broadcasters hold for each cue of a speech of usual speed, and no word is lost."""
    found = cues(transcript(said(text, timed=timed), language=language))

    assert " ".join(line for _, _, shown in found for line in shown) == text
    for (start, end, shown), following in zip(found, [*found[1:], None], strict=True):
        assert len(shown) <= 2
        assert max(map(len, shown)) <= 42
        assert 833 <= end - start <= 7000
        assert len(" ".join(shown)) <= 20.2 * (end - start) / 1000
        assert following is None or following[0] - end >= 83


@pytest.mark.parametrize(("text", "language"), [(SPEECH, "en"), (FRENCH, "fr")])
def test_no_line_ends_between_a_small_word_and_its_noun(text, language):
    """Neither after an article nor after a preposition, where the words are known."""
    small = {"the", "of", "in", "as", "into", "and", "that", "its", "since"} | {
        "le",
        "la",
        "de",
        "du",
        "les",
        "dans",
        "et",
    }

    assert [line for line in lines(transcript(said(text), language=language)) if line.split()[-1] in small] == []


def test_lines_are_balanced_and_break_at_a_clause():
    """Two lines of about the same length, the comma at the end of the first."""
    source = transcript(said("However, the smoke and noise they made, they were popular everywhere."))

    assert lines(source) == ["However, the smoke and noise they made,", "they were popular everywhere."]


def test_sentences_go_on_over_segments():
    """A cue is not a segment: the engine cuts where it likes."""
    source = transcript(said("He had come to the", 0.0), said("house of my father. Nobody", 1.3), said("knew.", 3.2))

    assert lines(source) == ["He had come to the house of my father.", "Nobody knew."]


def test_chinese_and_japanese_have_16_characters_in_a_line():
    """They are twice as wide; no line begins with a closing mark."""
    found = lines(transcript(Segment(0.0, 14.0, JAPANESE), language="ja"))

    assert "".join(found) == JAPANESE
    assert max(map(len, found)) <= 16
    assert not [line for line in found if line[0] in "、。っょ"]
    assert {line[-1] for line in found} >= {"、", "。"}


def test_a_word_that_no_line_can_hold_is_divided():
    """A web address is shown whole, in several lines."""
    address = "https://example.org/" + "a" * 60

    found = lines(transcript(said(f"See {address} now.")))

    assert "".join(found).replace(" ", "") == f"See{address}now."
    assert max(map(len, found)) <= 42


def test_a_short_word_stays_long_enough_to_be_read():
    """It is shown for 5/6 of a second, where nothing follows at once."""
    assert cues(transcript(Segment(1.0, 1.1, " Yes."), said("No.", 5.0)))[0] == (1000, 1834, ["Yes."])


def test_no_cue_is_a_flash_however_fast_somebody_speaks():
    """Words without length, as broken alignments give them, are shown one after the other."""
    source = transcript(*(Segment(1.0, 1.0, f" Sentence number {n} has a few words in it.") for n in range(5)))

    found = cues(source)

    assert min(end - start for start, end, _ in found) >= 833
    assert all(later[0] - earlier[1] >= 83 for earlier, later in itertools.pairwise(found))


def test_a_long_pause_ends_a_cue():
    """A text does not stand there before it is said."""
    assert [shown for _, _, shown in cues(transcript(said("One"), said("two.", 5.0)))] == [["One"], ["two."]]


def test_word_times_move_the_cue():
    """With times of words a cue begins with its first word, not with a share of the segment."""
    spoken = (*words("Now we wait, for a very long time,", 0.0, 2.0), *words("and there it comes at last.", 4.2, 6.0))
    text = " Now we wait, for a very long time, and there it comes at last."

    found = cues(transcript(Segment(0.0, 6.0, text, words=spoken)))

    assert [start for start, _, _ in found] == [0, 4200]


def test_what_two_say_at_once_is_one_srt_cue_with_two_dashes():
    """Players show one cue of srt at a time; it was 64 ms for one of the two."""
    source = transcript(
        said("He complained about the wizard.", 0.09, speaker="Ann"), said("The sky is far.", 0.15, speaker="Bob")
    )

    ((start, end, shown),) = cues(source)

    assert shown == ["- Ann: He complained about the wizard.", "- Bob: The sky is far."]
    assert (start, end - start > 2000) == (90, True)


def test_what_two_say_at_once_are_two_vtt_cues_at_a_time():
    """Each with its own words and times."""
    source = transcript(
        said("He complained about the wizard.", 0.09, speaker="Ann"), said("The sky is far.", 0.15, speaker="Bob")
    )
    content = render(source, OutputOptions(formats=("vtt",)))["vtt"].decode()

    read = webvtt.from_string(content)

    assert [(cue.voice, cue.text, cue.start) for cue in read] == [
        ("Ann", "He complained about the wizard.", "00:00:00.090"),
        ("Bob", "The sky is far.", "00:00:00.150"),
    ]


def test_the_name_stands_where_the_speaker_changes():
    """Not in each cue of a long speech."""
    source = transcript(
        said(SPEECH, speaker="Ann"), said("Indeed.", 25.0, speaker="Bob"), said("Yes.", 28, speaker="Ann")
    )

    found = lines(source)

    assert [line for line in found if ":" in line] == ["Ann: The history of urban", "Bob: Indeed.", "Ann: Yes."]
    assert max(map(len, found)) <= 42


def test_a_word_in_between_is_shown_beside_the_speech():
    """Somebody who says "Mm-hm." shares a cue, after which the name of the other stands again."""
    source = transcript(said(SPEECH, timed=True, speaker="Ann"), Segment(4.0, 4.4, " Mm-hm.", speaker="Bob"))

    found = [shown for _, _, shown in cues(source)]
    at = next(index for index, shown in enumerate(found) if "- Bob: Mm-hm." in shown)

    assert len(found[at]) == 2
    assert found[at][0].startswith("- ")
    assert found[at + 1][0].startswith("Ann: ")
    assert all(not shown[0].startswith("Ann") for shown in found[at + 2 :])


def test_a_long_name_leaves_room_for_words():
    """It is cut to half a line."""
    found = lines(transcript(said("Hello to you all.", speaker="N" * 100)))

    assert found == ["N" * 18 + "…: Hello to you all."]


@pytest.mark.parametrize(
    ("changes", "widest", "most"), [({"max_line_width": 20}, 20, 2), ({"max_line_count": 1}, 42, 1), ({"max_line_width": 30, "max_line_count": 3}, 30, 3)]
)  # fmt: skip
def test_the_options_are_the_limits(changes, widest, most):
    """Width alone, count alone, or both."""
    found = [shown for _, _, shown in cues(transcript(said(SPEECH)), **changes)]

    assert max(len(line) for shown in found for line in shown) <= widest
    assert max(map(len, found)) == most


def test_a_cue_has_at_most_the_words_that_are_asked_for():
    """`max_words_per_line`, as long as no width is given."""
    found = cues(transcript(said(SPEECH, timed=True)), max_words_per_line=4)

    assert max(len(" ".join(shown).split()) for _, _, shown in found) <= 4


def test_words_are_highlighted_within_readable_cues():
    """Each word in turn is underlined, the cue stays what it is."""
    found = cues(transcript(said("Nobody knows it.", timed=True, speed=8)), highlight_words=True)

    assert [shown for _, _, shown in found] == [
        ["<u>Nobody</u> knows it."], ["Nobody <u>knows</u> it."], ["Nobody knows <u>it.</u>"],
    ]  # fmt: skip
    assert [a[1] == b[0] for a, b in itertools.pairwise(found)] == [True, True]


def test_a_translation_is_broken_as_english():
    """The words are English, whatever was spoken."""
    text = "He went on with his work until it was night and the others slept."

    shown = cues(transcript(said(text), language="de"), about=About(task="translate"))

    assert not [
        line for _, _, each in shown for line in each if line.split()[-1] in {"with", "his", "until", "and", "the"}
    ]


def test_each_language_of_a_recording_has_its_own_lines():
    """No cue holds two languages, and each breaks by its own small words."""
    english = replace(said("He went on with his work until it was night and the others slept"), language="en")
    german = replace(
        said("Er ging mit seiner Arbeit weiter bis es Nacht war und die anderen", english.end), language="de"
    )

    found = [shown for _, _, shown in cues(transcript(english, german))]

    assert [shown[-1].split()[-1] for shown in found if "slept" in shown[-1]] == ["slept"]
    assert [shown[0].split()[0] for shown in found if "Er" in shown[0].split()] == ["Er"]
    assert not [
        line for shown in found for line in shown[:-1] if line.split()[-1] in {"with", "his", "mit", "seiner", "die"}
    ]


def test_ffmpeg_reads_the_subtitles():
    """A third reader finds the same number of cues."""
    source = transcript(said(SPEECH, speaker="A & B"), said("Yes <b>.", 22.0, speaker="C"))
    for name in ("srt", "vtt"):
        content = render(source, OutputOptions(formats=(name,)))[name]
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(),
            "-v",
            "error",
            "-f",
            {"vtt": "webvtt"}.get(name, name),
            "-i",
            "-",
            "-f",
            "srt",
            "-",
        ]
        ran = subprocess.run(command, input=content, capture_output=True, check=True)

        assert ran.stdout.decode().count(" --> ") == len(cues(source, name))


# Seams between windows


def windows(first, second, gap=0.1):
    """Two segments of two windows."""
    one = said(first)
    two = said(second, one.end + gap)
    return transcript(one, Segment(two.start, two.end, two.text, seek=3000))


@pytest.mark.parametrize(
    ("first", "second", "gap", "expected"),
    [
        pytest.param("it comes from...", "the house.", 0.1, "it comes from the house.", id="dots"),
        pytest.param("it comes from", "The house.", 0.1, "it comes from the house.", id="capital"),
        pytest.param("it comes home,", "And sleeps.", 0.5, "it comes home, and sleeps.", id="capital after a comma"),
        pytest.param("it was economical.", "the age began.", 0.5, "it was economical. The age began.", id="small letter"),
        pytest.param("my house", "house is old.", 0.1, "my house is old.", id="word twice"),
        pytest.param("it was very", "very old.", 0.5, "it was very very old.", id="meant twice"),
        pytest.param("it comes from", "London.", 0.1, "it comes from London.", id="a name keeps its capital"),
        pytest.param("he is Dr.", "who knows.", 0.1, "he is Dr. who knows.", id="abbreviation"),
    ],
)  # fmt: skip
def test_a_sentence_over_two_windows_reads_as_one(first, second, gap, expected):
    """What cannot be meant is repaired, in txt and in subtitles; json keeps what the engine said."""
    files = render(windows(first, second, gap), OutputOptions(formats=("txt", "srt", "json")))

    assert files["txt"].decode() == f"{expected}\n"
    assert " ".join(" ".join(shown) for _, _, shown in cues(windows(first, second, gap))) == expected
    assert first in files["json"].decode()


def test_within_a_window_nothing_is_repaired():
    """There the engine knew what it wrote."""
    source = transcript(said("it comes from..."), said("the house.", 1.5))

    assert render(source, OutputOptions(formats=("txt",)))["txt"] == b"it comes from... the house.\n"


def test_words_out_of_order_are_kept():
    """Times that go backward do not lose text."""
    spoken = (Word(3.0, 4.0, " one", 1.0), Word(1.0, 2.0, " two", 1.0))

    assert lines(transcript(Segment(1.0, 4.0, " one two", words=spoken))) == ["one two"]
