"""Small golden files, and each deliberate difference from whisper's writers; the properties compare with them."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import whisperd
from whisperd.core.options import OutputOptions
from whisperd.core.transcript import KnownVoices, Segment, Transcript, Word
from whisperd.output.formats import render
from whisperd.output.json import read as read_json

TEXT_FORMATS = ("txt", "srt", "vtt", "tsv", "json")  # of openai-whisper; the others have tests of their own
ROOT = Path(whisperd.__file__).parents[1]
PLAIN = OutputOptions(formats=TEXT_FORMATS, layout="raw")
HIGHLIGHTED = PLAIN.evolve(highlight_words=True)


def transcript(*segments, text="", language="en"):
    return Transcript(text, segments, language)


def words(*texts, start=0.0, length=0.5):
    """Words of equal length, one after the other."""
    return tuple(Word(start + i * length, start + (i + 1) * length, text, 0.9) for i, text in enumerate(texts))


def spoken(*texts, start=0.0, length=0.5):
    """A segment made of such words."""
    timed = words(*texts, start=start, length=length)
    return Segment(timed[0].start, timed[-1].end, "".join(texts), words=timed)


def written(name, source, options=PLAIN):
    return render(source, options)[name].decode()


def cues(source, options=PLAIN):
    """The cues of the srt file, as `(times, text)`."""
    blocks = written("srt", source, options).removesuffix("\n\n").split("\n\n")
    return [(times, text) for _number, times, text in (block.split("\n", 2) for block in blocks if block)]


def texts(source, options=PLAIN):
    return [text for _times, text in cues(source, options)]


GREETING = Transcript(
    " Grüß dich. 你好 🎙",
    (
        Segment(0.0, 1.5, " Grüß dich.", (50364, 1), 0, 0.0, -0.25, 1.1, 0.01),
        Segment(3661.25, 3662.0, " 你好 🎙", (50400, 2), 366000, 0.2, -0.5, 0.9, 0.02),
    ),
    "de",
)
GOLDEN = {
    "txt": "Grüß dich.\n你好 🎙\n",
    "srt": "1\n00:00:00,000 --> 00:00:01,500\nGrüß dich.\n\n2\n01:01:01,250 --> 01:01:02,000\n你好 🎙\n\n",
    "vtt": "WEBVTT\n\n00:00.000 --> 00:01.500\nGrüß dich.\n\n01:01:01.250 --> 01:01:02.000\n你好 🎙\n\n",
    "tsv": "start\tend\ttext\n0\t1500\tGrüß dich.\n3661250\t3662000\t你好 🎙\n",
    "json": '{"text": " Grüß dich. 你好 🎙", "segments": ['
    '{"id": 0, "seek": 0, "start": 0.0, "end": 1.5, "text": " Grüß dich.", "tokens": [50364, 1], '
    '"temperature": 0.0, "avg_logprob": -0.25, "compression_ratio": 1.1, "no_speech_prob": 0.01}, '
    '{"id": 1, "seek": 366000, "start": 3661.25, "end": 3662.0, "text": " 你好 🎙", "tokens": [50400, 2], '
    '"temperature": 0.2, "avg_logprob": -0.5, "compression_ratio": 0.9, "no_speech_prob": 0.02}], "language": "de"}',
}
NOTHING = {
    "txt": "",
    "srt": "",
    "vtt": "WEBVTT\n\n",
    "tsv": "start\tend\ttext\n",
    "json": '{"text": "", "segments": [], "language": "en"}',
}


@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_a_small_transcript_in_each_format(name):
    """Each format is UTF-8, with whisper's layout."""
    assert written(name, GREETING) == GOLDEN[name]


@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_no_speech_makes_a_valid_file(name):
    """A recording in which nobody speaks gives a file that a reader of the format accepts."""
    assert written(name, transcript()) == NOTHING[name]


def test_only_the_formats_asked_for_are_rendered():
    """The options choose the formats."""
    rendered = render(GREETING, PLAIN.evolve(formats=("vtt", "txt")))

    assert set(rendered) == {"vtt", "txt"}


def test_a_format_that_does_not_exist_is_refused():
    """No format is skipped in silence."""
    with pytest.raises(KeyError, match="doc"):
        render(GREETING, PLAIN.evolve(formats=("doc",)))


def test_the_words_of_json():
    """Words have the keys of whisper's."""
    (segment,) = json.loads(written("json", transcript(spoken(" Hi"))))["segments"]

    assert segment["words"] == [{"word": " Hi", "start": 0.0, "end": 0.5, "probability": 0.9}]


def test_times_of_a_hundred_hours_keep_all_their_digits():
    """Hours grow beyond two digits instead of wrapping."""
    late = transcript(Segment(360_000.0, 360_001.0, "late"))

    assert cues(late) == [("100:00:00,000 --> 100:00:01,000", "late")]
    assert "100:00:00.000 --> 100:00:01.000\nlate" in written("vtt", late)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, ["one two three four", "five six"], id="a cue for each segment"),
        pytest.param({"max_words_per_line": 3}, ["one two three", "four", "five six"], id="words"),
        pytest.param({"max_line_width": 9}, ["one two\nthree\nfour", "five six"], id="width"),
        pytest.param(
            {"max_line_width": 9, "max_line_count": 1}, ["one two", "three", "four five", "six"], id="width and count"
        ),
        pytest.param({"max_line_width": 9, "max_line_count": 2}, ["one two\nthree", "four five\nsix"], id="two lines"),
        pytest.param({"max_line_count": 1}, ["one two three four", "five six"], id="count alone does nothing"),
    ],
)
def test_subtitle_options_shape_cues_of_words(changes, expected):
    """Width, count and words per line mean what they mean to the whisper command."""
    source = transcript(spoken(" one", " two", " three", " four"), spoken(" five", " six", start=2.0))

    assert texts(source, PLAIN.evolve(**changes)) == expected


def test_a_long_pause_ends_a_cue_that_has_room():
    """Where cues fill up across segments, words more than three seconds apart are not shown together."""
    source = transcript(spoken(" one"), spoken(" two", start=3.125), spoken(" three", start=6.125))
    options = PLAIN.evolve(max_line_width=40, max_line_count=2)

    assert texts(source, options) == ["one", "two three"]


def test_a_cue_without_limits_is_one_line():
    """Nothing is wrapped that nobody asked to wrap."""
    source = transcript(spoken(*[" word"] * 199, length=0.1))

    assert texts(source) == [" ".join(["word"] * 199)]


def test_subtitle_options_do_nothing_without_words():
    """A text whose words have no times cannot be cut into cues."""
    options = HIGHLIGHTED.evolve(max_line_width=3, max_line_count=1, max_words_per_line=1)

    assert render(GREETING, options) == render(GREETING, PLAIN)


def test_highlighting_underlines_each_word_in_turn():
    """A cue for each word, and one without a mark for a pause between two."""
    source = transcript(Segment(0.0, 2.0, " so it", words=(*words(" so"), *words(" it", start=1.0))))

    assert cues(source, HIGHLIGHTED) == [
        ("00:00:00,000 --> 00:00:00,500", "<u>so</u> it"),
        ("00:00:00,500 --> 00:00:01,000", "so it"),
        ("00:00:01,000 --> 00:00:01,500", "so <u>it</u>"),
    ]


# Deliberate differences from whisper's writers, in the order of the module's docstring.


def test_words_are_used_though_the_first_segment_is_empty():
    """An empty first segment neither hides the words of the others nor breaks the writer."""
    cleared = Segment(0.0, 0.0, "")

    assert texts(transcript(cleared, spoken(" hello"))) == ["hello"]


def test_an_empty_first_segment_with_an_empty_list_of_words_is_no_error():
    """The first segment may say `words: []` while the others have none, which is a KeyError in whisper's writers."""
    cleared = Segment(0.0, 0.0, "", words=())

    assert texts(transcript(cleared, Segment(1.0, 2.0, " hello"))) == ["hello"]


def test_a_segment_without_words_among_others_keeps_its_text():
    """Text is never lost because its words could not be aligned."""
    source = transcript(spoken(" one"), Segment(2.0, 3.0, " not aligned"))

    assert cues(source)[1] == ("00:00:02,000 --> 00:00:03,000", "not aligned")


@pytest.mark.parametrize(
    ("segments", "has_words"),
    [
        pytest.param((Segment(0.0, 0.0, ""), spoken(" one")), [True, True], id="some words"),
        pytest.param((Segment(0.0, 0.0, "", words=()), Segment(1.0, 2.0, " a")), [False, False], id="no words"),
    ],
)
def test_words_are_in_all_segments_of_json_or_in_none(segments, has_words):
    """A reader that looks at one segment knows about all."""
    shown = json.loads(written("json", transcript(*segments)))["segments"]

    assert ["words" in segment for segment in shown] == has_words


BREAKS = ["\n", "\n\n", "\r\n", "\r", "\t", "\v", "\f", "\x00", "\x1b", "\x1c", "\x7f", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("mark", BREAKS, ids=ascii)
@pytest.mark.parametrize("timed", [False, True], ids=["segments", "words"])
def test_no_control_character_gets_out_of_its_cue_line_or_field(mark, timed):
    """A line break or control character in the text becomes a space for each character."""
    text = f"a{mark}b"
    source = transcript(spoken(text) if timed else Segment(0.0, 0.5, text), text=text)
    tame = "a" + " " * len(mark) + "b"

    assert written("txt", source) == f"{tame}\n"
    assert written("srt", source) == f"1\n00:00:00,000 --> 00:00:00,500\n{tame}\n\n"
    assert written("vtt", source) == f"WEBVTT\n\n00:00.000 --> 00:00.500\n{tame}\n\n"
    assert written("tsv", source) == f"start\tend\ttext\n0\t500\t{tame}\n"
    assert json.loads(written("json", source))["text"] == text


@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_a_lone_surrogate_becomes_the_replacement_character(name):
    """What UTF-8 cannot hold does not fail a finished job."""
    assert "x\ufffdy" in written(name, transcript(spoken(" x\ud800y"), text=" x\ud800y"))


@pytest.mark.parametrize("name", ["srt", "vtt"])
@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((" a", " -->", " b"), id="one word"),
        pytest.param((" a", " --", ">", " b"), id="across words"),
        pytest.param((" a", " ---->", " b"), id="longer"),
    ],
)
@pytest.mark.parametrize("timed", [False, True], ids=["segments", "words"])
def test_no_arrow_in_a_text_looks_like_a_timing_line(name, parts, timed):
    """`-->` stands in timing lines alone, whether the text came in words or not."""
    source = transcript(spoken(*parts) if timed else Segment(0.0, 2.0, "".join(parts)))
    content = written(name, source)

    assert content.count("-->") == 1
    assert "\na -> b\n" in content


@pytest.mark.parametrize("timed", [False, True], ids=["segments", "words"])
def test_vtt_escapes_what_would_be_markup(timed):
    """`<` and `&` of the text are text in WebVTT, and as they are in srt."""
    source = transcript(spoken(" R&D", " <3") if timed else Segment(0.0, 1.0, " R&D <3"))

    assert "\nR&amp;D &lt;3\n" in written("vtt", source)
    assert "\nR&D <3\n" in written("srt", source)


def test_vtt_keeps_the_markup_of_highlighted_words():
    """Escaping is for the text, not for the underline."""
    assert "\n<u>R&amp;D</u>\n" in written("vtt", transcript(spoken(" R&D")), HIGHLIGHTED)


def test_line_width_counts_what_is_seen():
    """An escaped character is as wide as the one it shows."""
    source = transcript(spoken(" R&D", " is"))

    assert "\nR&amp;D is\n" in written("vtt", source, PLAIN.evolve(max_line_width=6))


@pytest.mark.parametrize("timed", [False, True], ids=["segments", "words"])
def test_an_empty_segment_makes_no_cue(timed):
    """Cues are numbered without gaps; txt and tsv keep their line for each segment."""
    last = spoken(" b", start=2.0) if timed else Segment(2.0, 2.5, " b")
    source = transcript(Segment(0.0, 0.0, "", words=() if timed else None), Segment(1.0, 2.0, " \n "), last)

    assert written("srt", source) == "1\n00:00:02,000 --> 00:00:02,500\nb\n\n"
    assert written("txt", source) == "\n\nb\n"
    assert written("tsv", source) == "start\tend\ttext\n0\t0\t\n1000\t2000\t\n2000\t2500\tb\n"


def test_a_blank_word_is_not_shown():
    """A word of spaces alone leaves no empty line in a cue and gets no underline."""
    source = transcript(spoken(" a", " ", " b", length=1.0))

    assert texts(source, PLAIN.evolve(max_line_width=1)) == ["a\nb"]
    assert texts(source, HIGHLIGHTED) == ["<u>a</u> b", "a b", "a <u>b</u>"]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        pytest.param([(5.0, 5.0)], ["00:00:05,000 --> 00:00:05,001"], id="no length"),
        pytest.param([(5.0, 4.0)], ["00:00:05,000 --> 00:00:05,001"], id="ends before it starts"),
        pytest.param([(-0.02, 1.0)], ["00:00:00,000 --> 00:00:01,000"], id="negative"),
        pytest.param([(math.nan, math.inf)], ["00:00:00,000 --> 00:00:00,001"], id="not finite"),
        pytest.param([(0.0, 1e306)], ["00:00:00,000 --> 00:00:00,001"], id="not finite in milliseconds"),
        pytest.param(
            [(0.0, 5.0), (3.0, 6.0)],
            ["00:00:00,000 --> 00:00:03,000", "00:00:03,000 --> 00:00:06,000"],
            id="overlap",
        ),
        pytest.param(
            [(2.0, 3.0), (1.0, 4.0)],
            ["00:00:02,000 --> 00:00:02,001", "00:00:02,001 --> 00:00:04,000"],
            id="out of order",
        ),
        pytest.param(
            [(2.0, 2.0), (2.0, 3.0)],
            ["00:00:02,000 --> 00:00:02,001", "00:00:02,001 --> 00:00:03,000"],
            id="no length, then one at the same time",
        ),
    ],
)
def test_cues_are_put_in_order_apart_and_have_a_length(times, expected):
    """What no player can show is repaired by as little as possible."""
    source = transcript(*(Segment(start, end, "text") for start, end in times))

    assert [shown for shown, _text in cues(source)] == expected


def test_highlighted_words_that_overlap_make_no_backward_cue():
    """The pause between two words is never negative."""
    source = transcript(Segment(0.0, 2.0, " a b", words=(Word(0.0, 1.5, " a", 1.0), Word(1.0, 2.0, " b", 1.0))))

    assert cues(source, HIGHLIGHTED) == [
        ("00:00:00,000 --> 00:00:01,000", "<u>a</u> b"),
        ("00:00:01,000 --> 00:00:02,000", "a <u>b</u>"),
    ]


def test_tsv_and_json_keep_the_times_as_they_are():
    """Repairs are for players; data stays what the engine said."""
    source = transcript(Segment(2.0, 2.0, "a"), Segment(1.0, 3.0, "b"))

    assert written("tsv", source) == "start\tend\ttext\n2000\t2000\ta\n1000\t3000\tb\n"
    assert [s["start"] for s in json.loads(written("json", source))["segments"]] == [2.0, 1.0]


def test_json_has_null_where_a_number_is_not_finite():
    """NaN is not JSON, and strict readers refuse the whole file for it."""
    (segment,) = json.loads(
        written("json", transcript(Segment(0.0, 1.0, "a", avg_logprob=math.nan))),
        parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"),
    )["segments"]

    assert segment["avg_logprob"] is None


def test_rendering_loads_no_model_code():
    """The formats can be listed and written where torch is not installed."""
    program = (
        "import sys, whisperd.output.formats; print({'torch', 'numpy', 'whisper', 'whisperd.engine'} & {*sys.modules})"
    )

    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout

    assert loaded == "set()\n"


def test_json_names_the_language_of_each_part_where_there_are_several():
    """One language is said once, as openai-whisper says it."""
    spoken = [Segment(0.0, 1.0, " yes", language="en"), Segment(1.0, 2.0, " ja", language="de")]
    several = json.loads(written("json", transcript(*spoken)))
    one = json.loads(written("json", transcript(*(replace(segment, language=None) for segment in spoken))))

    assert [segment["language"] for segment in several["segments"]] == ["en", "de"]
    assert several["languages"] == [
        {"start": 0.0, "end": 1.0, "language": "en"},
        {"start": 1.0, "end": 2.0, "language": "de"},
    ]
    assert several["language"] == one["language"] == "en"
    assert "languages" not in one
    assert all("language" not in segment for segment in one["segments"])


def test_replacements_are_made_in_every_format_and_reported_in_json():
    """Each format shows the right word; json counts it and keeps what was recorded, but only where something changed."""
    source = transcript(spoken(" Mayer", " says"), spoken(" yes", start=5.0), text=" Mayer says yes")
    options = PLAIN.evolve(replacements={"Mayer": "Meyer"})

    for name in TEXT_FORMATS:
        assert "Meyer" in written(name, source, options)
    document = json.loads(written("json", source, options))
    changed, same = document["segments"]
    assert document["replacements"] == [{"wrong": "Mayer", "right": "Meyer", "count": 1}]
    assert document["text"] == " Meyer says yes"
    assert [word["word"] for word in changed["words"]] == [" Meyer", " says"]
    assert changed["recorded"]["text"] == " Mayer says"
    assert [word["word"] for word in changed["recorded"]["words"]] == [" Mayer", " says"]
    assert "recorded" not in same


def test_json_names_gaps_and_they_are_read_again():
    """A transcript that is rendered again has them too."""
    gaps = [{"from": 2.0, "to": 4.5, "why": "silence"}]
    several = (Segment(0.0, 1.0, " yes", language="en"), Segment(1.0, 2.0, " ja", language="de"))
    data = written("json", Transcript(" yes ja", several, "en", quality={"gaps": gaps}))
    read, _ = read_json(data.encode())

    assert json.loads(data)["gaps"] == gaps
    assert read.quality["gaps"] == gaps
    assert [segment.language for segment in read.segments] == ["en", "de"]
    assert "gaps" not in json.loads(written("json", transcript(Segment(0.0, 1.0, " yes"))))


def test_json_names_known_voices_with_their_scores():
    """And the samples that could not be used; nothing where there were none."""
    voices = KnownVoices({"Anna": 0.87}, ("inbox/_voices/Ben.wav: the file is empty",))
    data = json.loads(written("json", replace(transcript(Segment(0.0, 1.0, " yes")), voices=voices)))

    assert data["voices"] == {"recognized": {"Anna": 0.87}, "unusable": ["inbox/_voices/Ben.wav: the file is empty"]}
    assert "voices" not in json.loads(written("json", transcript(Segment(0.0, 1.0, " yes"))))
