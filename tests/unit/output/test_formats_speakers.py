"""Who speaks, in every format."""

import json

import pytest

from whisperd.core.options import OutputOptions
from whisperd.core.transcript import Segment, Transcript, Word
from whisperd.output.formats import render

TEXT_FORMATS = ("txt", "srt", "vtt", "tsv", "json")  # of openai-whisper; the others have tests of their own


def spoken(speaker, text, start):
    words = tuple(Word(start + 0.1 * n, start + 0.1 * (n + 1), f" {word}", 1.0) for n, word in enumerate(text.split()))
    return Segment(start, words[-1].end, f" {text}", words=words, speaker=speaker)


def plain(speaker, text, start):
    return Segment(start, start + 1.0, f" {text}", speaker=speaker)


def written(name, *segments, **changes):
    shape = {"max_line_width": None, "max_line_count": None, "max_words_per_line": None, "highlight_words": False}
    options = OutputOptions(**{"formats": TEXT_FORMATS, "layout": "raw", **shape, **changes})
    return render(Transcript("", segments, "en"), options)[name].decode()


def texts(content):
    """The texts of the cues."""
    return [cue.partition(" --> ")[2].partition("\n")[2] for cue in content.split("\n\n") if " --> " in cue]


@pytest.mark.parametrize("make", [plain, spoken])
def test_each_format_names_the_speaker(make):
    """As its readers expect it; a name can break no line, field or tag."""
    two = (make("Ann", "hello", 0.0), make("B &\t<C>\n", "who is that", 2.0))

    assert written("txt", *two) == "Ann: hello\nB & <C> : who is that\n"
    assert texts(written("srt", *two)) == ["Ann: hello", "B & <C> : who is that"]
    assert texts(written("vtt", *two)) == ["<v Ann>hello", "<v B &amp; &lt;C&gt; >who is that"]
    assert [line.split("\t")[2:] for line in written("tsv", *two).splitlines()] == [
        ["text", "speaker"], ["hello", "Ann"], ["who is that", "B & <C> "],
    ]  # fmt: skip
    assert [each["speaker"] for each in json.loads(written("json", *two))["segments"]] == ["Ann", "B &\t<C>\n"]


def test_without_speakers_nothing_is_added():
    """The files are those of openai-whisper, byte for byte."""
    assert written("txt", plain(None, "hello", 0.0)) == "hello\n"
    assert written("tsv", plain(None, "hello", 0.0)).startswith("start\tend\ttext\n")
    assert "speaker" not in written("json", plain(None, "hello", 0.0))


def test_no_cue_holds_words_of_two_speakers():
    """Though there would be room for both."""
    shaped = {"max_line_width": 40, "max_line_count": 2}
    said = (spoken("Ann", "one two", 0.0), spoken("Ann", "three", 0.5), spoken("Bob", "four", 1.0))

    assert texts(written("srt", *said, **shaped)) == ["Ann: one two three", "Bob: four"]


def test_the_name_counts_for_the_width_of_the_first_line():
    """What is shown must fit."""
    said = (spoken("Ann", "aaaa bbbb cccc dddd", 0.0),)

    cues = texts(written("srt", *said, max_line_width=14, max_line_count=2))

    assert cues == ["Ann: aaaa bbbb\ncccc dddd"]


def test_highlighting_does_not_underline_the_name():
    """It is nothing that is spoken."""
    cues = texts(written("vtt", spoken("Ann", "one two", 0.0), highlight_words=True))

    assert cues == ["<v Ann><u>one</u> two", "<v Ann>one <u>two</u>"]


def test_a_silent_segment_makes_no_cue_of_a_name_alone():
    """There is nothing to show."""
    assert texts(written("srt", plain("Ann", " ", 0.0), plain("Bob", "hi", 1.0))) == ["Bob: hi"]
