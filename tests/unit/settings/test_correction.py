"""What a correction may say, and with which options a completed job is rendered again."""

import pytest

from whisperd.core.correction import Correction, SegmentChange
from whisperd.core.errors import CorrectionRefused
from whisperd.settings import config
from whisperd.settings.correction import output_options, parse, recording_named

CONFIG = config.validate(
    {"output": {"max_line_width": 30, "replacements": {"a": "b"}}, "profiles": {"x/**": {"max_line_width": 40}}},
    source="test",
)
SHA256 = "0A" * 32


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Correction(by="me")),
        ({"correction": True}, Correction(by="me")),
        ({"correction": SHA256, "formats": ("srt",)}, Correction(digest=SHA256.lower(), formats=("srt",), by="me")),
        ({"speakers": {"A": "B"}, "max_line_width": 42}, Correction({"A": "B"}, options={"max_line_width": 42}, by="me")),
        ({"replacements": {"a": "", "/b/": "c"}}, Correction(replacements={"a": "", "/b/": "c"}, by="me")),
    ],
)  # fmt: skip
def test_what_is_meant(values, expected):
    """Each key, and none."""
    assert parse(CONFIG, values, by="me") == expected


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"correction": False}, "correction: must be true, or the SHA-256"),
        ({"correction": "0a"}, "correction: must be true, or the SHA-256"),
        ({"speakers": ("Anna",)}, "speakers: must name new names by old ones, as {Speaker 1: Anna}"),
        ({"speakers": {"Speaker 1": ""}}, "speakers: a name has 1 to 100 characters"),
        ({"speakers": {"Speaker 1": "a\nb"}}, "no line breaks"),
        ({"replacements": {"/(/": "x"}}, "the pattern is wrong: missing )"),
        ({"formats": ("srt", "doc")}, "formats.1: input should be 'txt'"),
        ({"max_line_width": 0}, "max_line_width: input should be greater"),
        ({"language": "fr"}, "language: needs the model: use `whisperd retry --done`"),
        ({"model": "large-v3"}, "model: needs the model"),
        ({"speaker": {}}, "speaker: unknown key; correction, speakers, replacements, formats"),
        ({"highlight_words": True}, "highlight_words: may not be set by a ticket (tickets.allow)"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(values, reason):
    """And nothing of it is followed."""
    with pytest.raises(CorrectionRefused) as refused:
        parse(CONFIG, values, by="me", allowed=["speakers", "replacements", "formats", "max_line_width"])

    assert reason in str(refused.value)


def test_the_later_source_wins_key_by_key():
    """Configuration, profiles, the ticket of the upload, corrections."""
    assert output_options(CONFIG, "a.mp3", [], ["srt"]).max_line_width == 30
    assert output_options(CONFIG, "x/a.mp3", [], ["srt"]).max_line_width == 40
    recorded = [{"max_line_width": 50, "language": "fr"}, {"replacements": {"c": "d"}}, {"max_line_width": 60}]
    output = output_options(CONFIG, "x/a.mp3", recorded, ["vtt", "srt"])

    assert (output.max_line_width, output.replacements, set(output.formats)) == (60, {"c": "d"}, {"srt", "vtt"})


def test_a_recorded_option_that_is_no_longer_accepted_is_left_out():
    """Status files of other releases, and those that people have edited, must not keep a name from being corrected."""
    output = output_options(CONFIG, "a.mp3", [{"max_line_width": "wide", "max_line_count": 3}], ["srt"])

    assert (output.max_line_width, output.max_line_count) == (30, 3)


TRANSCRIPT = "sha256:" + SHA256


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"id": "3", "text": "a"}, SegmentChange(3, 3, "a")),
        ({"id": "4-5"}, SegmentChange(4, 5)),
        ({"id": "0", "speaker": "Anna"}, SegmentChange(0, 0, speaker="Anna")),
        ({"id": "0", "text": ""}, SegmentChange(0, 0, "")),
    ],
)
def test_segments_are_changed(entry, expected):
    """With the digest of the transcript that they belong to."""
    found = parse(CONFIG, {"transcript": TRANSCRIPT, "segments": (entry,), "new_speakers": ("Anna",)}, by="me")

    assert (found.segments, found.transcript, found.new_speakers) == ((expected,), SHA256.lower(), ("Anna",))


def entries(*found):
    return {"transcript": TRANSCRIPT, "segments": found}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"segments": ({"id": "0", "text": "a"},)}, "segments: need the key transcript"),
        ({"transcript": "sha256:0a"}, "transcript: must be sha256: and the SHA-256 of the json"),
        ({"transcript": True}, "transcript: must be sha256:"),
        ({"new_speakers": ("",)}, "new_speakers: must be a list of names"),
        ({"new_speakers": "Anna"}, "new_speakers: must be a list of names"),
        (entries("a"), "segments.0: must be a list of mappings"),
        ({"transcript": TRANSCRIPT, "segments": {"0": "a"}}, "segments: must be a list of mappings"),
        (entries({"text": "a"}), "segments.0.id: must be the number of a segment"),
        (entries({"id": 3}), "segments.0.id: must be the number of a segment"),
        (entries({"id": "-1"}), "segments.0.id: must be the number of a segment"),
        (entries({"id": "0"}, {"id": "1", "text": 5}), "segments.1.text: must be a text of at most 10,000 characters"),
        (entries({"id": "0", "text": "x" * 10_001}), "segments.0.text: must be a text of at most 10,000 characters"),
        (entries({"id": "0", "text": "a\nb"}), "without line breaks"),
        (entries({"id": "0", "speaker": ""}), "segments.0.speaker: a name has 1 to 100 characters"),
        (entries({"id": "0", "start": "1"}), "segments.0.start: unknown key; id, text, speaker"),
        (entries({"id": "5-4"}), "segments.0.id: ends before it begins"),
        (entries({"id": "2"}, {"id": "1"}), "segments.1.id: the segments must be in order"),
        (entries({"id": "1-3"}, {"id": "3"}), "segments.1.id: the segments must be in order"),
        (entries({"id": "1", "text": "a"}, {"id": "1"}), "segments.1.id: comes more than once: each part of a split"),
    ],
)
def test_what_is_wrong_with_segments_is_said(values, reason):
    """With the number of the entry, from 0."""
    with pytest.raises(CorrectionRefused) as refused:
        parse(CONFIG, values, by="me")

    assert reason in str(refused.value)


def test_segments_and_names_need_the_permission_of_what_they_change():
    """Where tickets may replace no words, they may write none."""
    parse(CONFIG, entries({"id": "0", "text": "a"}), by="me", allowed=["replacements"])
    for values, key in ((entries({"id": "0", "text": "a"}), "segments"), ({"new_speakers": ("A",)}, "new_speakers")):
        with pytest.raises(CorrectionRefused, match=f"{key}: may not be set by a ticket"):
            parse(CONFIG, values, by="me", allowed=["formats"])


@pytest.mark.parametrize("name", ["", "..", ".", "a/b.mp3", "a\x00", 5, ("a",), "x" * 256])
def test_a_recording_is_named_without_folders(name):
    """A correction is for its own folder."""
    with pytest.raises(CorrectionRefused, match="recording: must be the name of a file"):
        recording_named({"recording": name})
