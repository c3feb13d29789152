"""Rendering again from the recorded transcript: the same files without a correction, and the corrected ones with it."""

import hashlib
import io
import json
import math
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest

from whisperd.core.correction import Correction, RenderRequest, as_ticket, is_correction
from whisperd.core.errors import CorrectionRefused
from whisperd.core.options import FORMATS, OutputOptions
from whisperd.core.transcript import About, Segment, Transcript, Word
from whisperd.intake.ticket import parse
from whisperd.output.again import render_again
from whisperd.output.formats import render

ABOUT = About(
    "a.mp3", "../done/a.mp3", 12.5, (0, 50, 100), "transcribe", "scripted, model base", "2026-01-02T03:04:05Z"
)
OPTIONS = OutputOptions(formats=FORMATS, layout="raw")
SHA256 = "0a" * 32


def word(start, text, probability=0.9):
    return Word(start, start + 0.5, text, probability)


TALK = Transcript(
    " Mayer here. Who? Mayer.",
    (
        Segment(0.0, 1.0, " Mayer here.", (1, 2), 0, 0.2, math.nan, 1.1, 0.01, (word(0.0, " Mayer"), word(0.5, " here.")), "Left"),
        Segment(1.0, 1.5, " Who?", (3,), 100, words=(word(1.0, " Who?"),), speaker="Right"),
        Segment(2.0, 2.5, " Mayer.", (4,), 200, words=(word(2.0, " Mayer.", 0.25),), speaker="Left"),
    ),
    "en",
)  # fmt: skip
FILES = render(TALK, OPTIONS, ABOUT)
RECORDED = FILES["json"]


def again(recorded=RECORDED, options=OPTIONS, about=ABOUT, **correction):
    request = RenderRequest("/outbox", (), "a.json", options, Correction(**correction), SHA256, about)
    return render_again(RenderRequest.decode(request.encode()), recorded).files


def document(files):
    return json.loads(files["json"])


def edited(change, recorded=RECORDED):
    """The recorded transcript after somebody has changed it."""
    content = json.loads(recorded)
    change(content)
    return json.dumps(content).encode()


def test_without_a_correction_every_format_is_the_same():
    """The recorded transcript says all that formats show."""
    assert again(about=About(ABOUT.title, ABOUT.link)) == FILES


def test_speakers_get_names_in_every_format():
    """All at once, so two can swap their names."""
    files = again(speakers={"Left": "Anna", "Right": "Left"})

    assert files["txt"].decode() == "Anna: Mayer here.\nLeft: Who?\nAnna: Mayer.\n"
    with zipfile.ZipFile(io.BytesIO(files["docx"])) as parts:
        files["docx"] = parts.read("word/document.xml")
    for name in FORMATS:
        assert b"Anna" in files[name]
        assert b"Right" not in files[name].replace(b"ArrowRight", b"")
    assert [segment["speaker"] for segment in document(files)["segments"]] == ["Anna", "Left", "Anna"]


def test_replacements_are_reported_and_words_keep_their_times():
    """As those that the configuration names."""
    files = again(replacements={"Mayer": "Meyer"})

    assert files == render(TALK, OPTIONS.evolve(replacements={"Mayer": "Meyer"}), ABOUT)
    assert document(files)["replacements"] == [{"wrong": "Mayer", "right": "Meyer", "count": 2}]


def test_the_same_correction_again_changes_nothing():
    """Even where the right text contains the wrong one: replacements are made in the recorded words."""
    once = again(replacements={"Mayer": "Mayer-Lee"})
    twice = again(once["json"], replacements={"Mayer": "Mayer-Lee"})

    assert twice == once
    assert again(once["json"]) == once


def test_a_replacement_is_corrected_or_taken_back():
    """What the engine wrote is not lost."""
    once = again(replacements={"Mayer": "Meyer", "Who": "What"})

    other = again(once["json"], replacements={"Mayer": "Maier"})
    back = again(once["json"], replacements={"Mayer": "Mayer", "Who": "Who"})

    assert other["txt"].decode() == "Left: Maier here.\nRight: What?\nLeft: Maier.\n"
    assert back["txt"] == FILES["txt"]
    assert document(back)["segments"] == document(FILES)["segments"]


def test_replacements_of_the_configuration_are_made_too():
    """But what was decided for this recording counts more."""
    options = OPTIONS.evolve(replacements={"Mayer": "Meyer", "Who": "What"})
    files = again(again(replacements={"Mayer": "Maier"})["json"], options)

    assert files["txt"].decode() == "Left: Maier here.\nRight: What?\nLeft: Maier.\n"


def test_a_text_that_somebody_edited_is_the_recorded_one():
    """Also where words had been replaced in it before."""
    replaced = again(replacements={"Mayer": "Meyer"})["json"]

    def edit(content):
        content["segments"][0]["text"] = " Dr. Meyer here."
        del content["segments"][0]["words"]

    files = again(edited(edit, replaced), replacements={"here": "there"})

    assert files["txt"].decode().splitlines()[0] == "Left: Dr. Meyer there."
    assert document(files)["segments"][0]["recorded"]["text"] == " Dr. Meyer here."


def test_fields_of_another_release_are_kept():
    """A transcript does not lose what this release does not know."""

    def add(content):
        content["mood"] = "good"
        content["segments"][1]["mood"] = [1]

    files = again(edited(add), speakers={"Left": "Anna"})

    assert document(files)["mood"] == "good"
    assert document(files)["segments"][1]["mood"] == [1]


def test_an_older_transcript_is_rendered_with_what_the_status_file_says():
    """It has no field `recording`; how loud the recording is along its length is lost."""
    files = again(edited(lambda content: content.pop("recording")))

    assert files == render(TALK, OPTIONS, replace(ABOUT, heights=()))


@pytest.mark.parametrize("digest", [SHA256, hashlib.sha256(RECORDED).hexdigest()], ids=["recording", "transcript"])
def test_a_digest_that_fits_is_accepted(digest):
    """Of the recording, or of the transcript as it is now."""
    assert again(digest=digest) == FILES


@pytest.mark.parametrize(
    ("recorded", "correction", "reason"),
    [
        (RECORDED, {"digest": "0b" * 32}, "neither that of the recording nor that of its transcript as it is now"),
        (RECORDED, {"speakers": {"Middle": "Anna"}}, "nobody is called Middle in this transcript (speakers: Left, Right)"),
        (edited(lambda content: [each.pop("speaker") for each in content["segments"]]), {"speakers": {"Left": "Anna"}}, "none is told apart here"),
        (b"{", {}, "a.json is not a recorded transcript: Invalid JSON"),
        (b"[]", {}, "a.json is not a recorded transcript: "),
        (b"[" * 100_000, {}, "a.json is not a recorded transcript: "),
        (b'{"text": ""}', {}, "segments: Field required"),
        (edited(lambda content: content["segments"][1].update(start="1")), {}, "segments.1.start: Input should be a valid number"),
        (edited(lambda content: content["segments"][0]["words"][1].pop("word")), {}, "segments.0.words.1.word: Field required"),
        (edited(lambda content: content.update(replacements=[{"wrong": "/(/", "right": ""}])), {}, "replacements.0: Value error, the pattern is wrong"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(recorded, correction, reason):
    """With what is wrong."""
    with pytest.raises(CorrectionRefused) as refused:
        again(recorded, **correction)

    assert reason in str(refused.value)


def test_no_model_is_loaded():
    """Neither torch nor numpy: rendering takes as long as reading and writing the files."""
    program = "import sys, whisperd.worker.rerender; print({'torch', 'numpy', 'whisper'} & {*sys.modules})"

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ran.stdout == "set()\n"


@pytest.mark.parametrize(
    ("correction", "values"),
    [
        (Correction(), {"correction": True}),
        (
            Correction({"Speaker 1": 'Åsa: "A"'}, {"/a\\d/": "\\1", "x": ""}, ("srt", "txt"), {"max_line_width": 42}, SHA256),
            {
                "correction": SHA256,
                "speakers": {"Speaker 1": 'Åsa: "A"'},
                "replacements": {"/a\\d/": "\\1", "x": ""},
                "formats": ("srt", "txt"),
                "max_line_width": 42,
            },
        ),
    ],
)  # fmt: skip
def test_a_correction_is_written_as_a_ticket(correction, values):
    """Which says the same to whoever reads it."""
    ticket = parse("a.mp3.yaml", as_ticket(correction))

    assert (ticket.values, ticket.problems) == (values, ())
    assert is_correction(ticket.values)
