"""Segments that a person has written anew, joined, split, removed or given to another speaker."""

import hashlib
import json

import pytest

from whisperd.core.correction import Correction, RenderRequest, SegmentChange
from whisperd.core.errors import CorrectionRefused
from whisperd.core.options import OutputOptions
from whisperd.core.transcript import About, Segment, Transcript, Word
from whisperd.output.again import render_again
from whisperd.output.formats import render

OPTIONS = OutputOptions(formats=("txt", "srt", "json", "html"), layout="raw")
ABOUT = About("a.mp3", "../done/a.mp3", 9.0, (), "transcribe", "scripted", "2026-01-02T03:04:05Z")


def words(start, *texts):
    """One word a second."""
    return tuple(Word(start + at, start + at + 0.5, text, 0.4) for at, text in enumerate(texts))


TALK = Transcript(
    " The cat sat. On Mayer here. Who?",
    (
        Segment(0.0, 3.0, " The cat sat.", (1,), 0, words=words(0, " The", " cat", " sat."), speaker="Anna"),
        Segment(3.0, 6.0, " On Mayer here.", (2,), 0, words=words(3, " On", " Mayer", " here."), speaker="Anna"),
        Segment(6.0, 7.0, " Who?", (3,), 600, words=words(6, " Who?"), speaker="Ben"),
    ),
    "en",
)


def recorded(talk=TALK, **options):
    return render(talk, OPTIONS.evolve(**options), ABOUT)["json"]


def corrected(*segments, document=None, options=OPTIONS, **correction):
    """The files after a correction of these segments."""
    document = document or recorded()
    correction = {"transcript": hashlib.sha256(document).hexdigest()} | correction
    request = RenderRequest(
        "/outbox", (), "a.json", options, Correction(segments=segments, **correction), "0a" * 32, ABOUT
    )
    return render_again(RenderRequest.decode(request.encode()), document).files


def said(files):
    """Start, end, text and speaker of each segment."""
    found = json.loads(files["json"])["segments"]
    return [(each["start"], each["end"], each["text"], each["speaker"]) for each in found]


def timed(files, index):
    """Each word of a segment with its times."""
    found = json.loads(files["json"])["segments"][index]
    return [(each["word"], each["start"], each["end"]) for each in found["words"]]


REST = [(3.0, 6.0, " On Mayer here.", "Anna"), (6.0, 7.0, " Who?", "Ben")]


def test_a_text_is_written_anew_and_words_that_stay_keep_their_times():
    """What is new has the time of what it replaces; every format has it."""
    files = corrected(SegmentChange(0, 0, "The black dog sat."))

    assert said(files) == [(0.0, 3.0, " The black dog sat.", "Anna"), *REST]
    assert timed(files, 0) == [
        (" The", 0.0, 0.5),
        (" black", 1.0, pytest.approx(1.3)),
        (" dog", pytest.approx(1.3), 1.5),
        (" sat.", 2.0, 2.5),
    ]
    segment = json.loads(files["json"])["segments"][0]
    assert (segment["edited"], segment["tokens"], segment["words"][1]["probability"]) == (True, [], 1.0)
    assert json.loads(files["json"])["text"] == " The black dog sat. On Mayer here. Who?"
    for kind in ("txt", "srt"):
        assert b"The black dog sat." in files[kind]


def test_words_that_are_added_share_the_pause_before_the_next():
    """And one that is added at the end the rest of the segment."""
    files = corrected(SegmentChange(0, 0, "So The cat sat. Yes."))

    assert timed(files, 0) == [
        (" So", 0.0, 0.0),
        (" The", 0.0, 0.5),
        (" cat", 1.0, 1.5),
        (" sat.", 2.0, 2.5),
        (" Yes.", 2.5, 3.0),
    ]


def test_segments_are_joined_and_keep_their_words():
    """With the text that they have, or another; the speaker is the first one's."""
    plain = corrected(SegmentChange(0, 1))
    other = corrected(SegmentChange(1, 2, "On Mayer here: who?"))

    assert said(plain) == [(0.0, 6.0, " The cat sat. On Mayer here.", "Anna"), REST[1]]
    assert "edited" not in json.loads(plain["json"])["segments"][0]
    assert len(timed(plain, 0)) == 6
    assert said(other)[1] == (3.0, 7.0, " On Mayer here: who?", "Anna")
    assert timed(other, 1)[:2] == [(" On", 3.0, 3.5), (" Mayer", 4.0, 4.5)]


def test_a_segment_is_split_at_its_words():
    """Each part has its own words, times and speaker."""
    files = corrected(SegmentChange(0, 0, "The cat"), SegmentChange(0, 0, "sat.", "Ben"))

    assert said(files) == [(0.0, 1.5, " The cat", "Anna"), (2.0, 3.0, " sat.", "Ben"), *REST]
    assert timed(files, 1) == [(" sat.", 2.0, 2.5)]
    assert [each["id"] for each in json.loads(files["json"])["segments"]] == [0, 1, 2, 3]


def test_without_words_the_time_is_divided_by_the_text():
    """As everywhere else."""
    document = recorded(Transcript(" abcd efgh", (Segment(0.0, 9.0, " abcd efgh", speaker="Anna"),), "en"))
    files = corrected(SegmentChange(0, 0, "abcd"), SegmentChange(0, 0, "e f"), document=document)

    assert said(files) == [
        (0.0, pytest.approx(5.0), " abcd", "Anna"),
        (pytest.approx(5.0), 9.0, " e f", "Anna"),
    ]


def test_scripts_without_spaces_keep_the_words_that_stay():
    """A word may be split between two parts, then both parts of it are new."""
    talk = Transcript(
        "東京に行く", (Segment(0.0, 3.0, "東京に行く", words=words(0, "東京", "に", "行く"), speaker="A"),), "ja"
    )
    changed = corrected(SegmentChange(0, 0, "京都に行く"), document=recorded(talk))
    split = corrected(SegmentChange(0, 0, "東"), SegmentChange(0, 0, "京に行く"), document=recorded(talk))

    assert timed(changed, 0) == [("京都", 0.0, 0.5), ("に", 1.0, 1.5), ("行く", 2.0, 2.5)]
    assert [text for _, _, text, _ in said(split)] == ["東", "京に行く"]
    assert timed(split, 1)[1:] == [("に", 1.0, 1.5), ("行く", 2.0, 2.5)]
    assert timed(split, 0) == [("東", 0.0, 0.25)]


def test_a_segment_is_removed_or_given_to_somebody():
    """A name that is new must be said to be new; renaming comes first."""
    files = corrected(
        SegmentChange(0, 0, ""),
        SegmentChange(1, 1, speaker="Carla"),
        SegmentChange(2, 2, speaker="Benno"),
        speakers={"Ben": "Benno"},
        new_speakers=("Carla",),
    )

    assert said(files) == [(3.0, 6.0, " On Mayer here.", "Carla"), (6.0, 7.0, " Who?", "Benno")]
    assert "edited" not in json.loads(files["json"])["segments"][0]


def test_what_a_person_wrote_is_not_replaced_again():
    """Only a replacement that was never made before is made there, once."""
    document = recorded(replacements={"Mayer": "Mayer-Lee"})
    options = OPTIONS.evolve(replacements={"here": "there"})
    once = corrected(SegmentChange(1, 1, "So Mayer-Lee is here."), document=document, options=options)
    again = corrected(document=once["json"], transcript="", replacements={"Mayer": "Mayer-Lee", "Who": "What"})
    later = corrected(document=again["json"], transcript="", replacements={"is": "was"})
    last = corrected(document=later["json"], transcript="", replacements={"is": "was"})

    assert said(once)[1][2] == " So Mayer-Lee is here."
    assert [text for _, _, text, _ in said(again)] == [" The cat sat.", " So Mayer-Lee is here.", " What?"]
    assert said(later)[1][2] == " So Mayer-Lee was here."
    assert last["json"] == later["json"]


def test_a_seam_is_not_repaired_in_what_a_person_wrote():
    """A capital, a full stop and a repeated word are meant there."""
    talk = Transcript(
        "",
        (
            Segment(0.0, 2.0, " He went,", seek=0, words=words(0, " He", " went,")),
            Segment(2.0, 4.0, " The end.", seek=200, words=words(2, " The", " end.")),
        ),
        "en",
    )
    document = render(talk, OPTIONS, ABOUT)["json"]
    options = OutputOptions(formats=("txt", "json"))
    assert corrected(document=document, options=options)["txt"] == b"He went, the end.\n"
    assert (
        corrected(SegmentChange(1, 1, "The End."), document=document, options=options)["txt"] == b"He went, The End.\n"
    )


def test_a_page_names_the_transcript_that_it_shows():
    """So that its corrections are for no other."""
    files = corrected(SegmentChange(0, 0, "The dog sat."))

    assert f'"sha256:{hashlib.sha256(files["json"]).hexdigest()}"' in files["html"].decode()


def test_the_fields_of_another_release_stay_with_their_segments():
    """Also where one is removed and one is split."""
    content = json.loads(recorded())
    for number, segment in enumerate(content["segments"]):
        segment["mood"] = number
    files = corrected(
        SegmentChange(0, 0, ""),
        SegmentChange(1, 1, "On"),
        SegmentChange(1, 1, "here."),
        document=json.dumps(content).encode(),
    )

    assert [each["mood"] for each in json.loads(files["json"])["segments"]] == [1, 1, 2]


@pytest.mark.parametrize(
    ("segments", "correction", "reason"),
    [
        ([SegmentChange(0, 0, "x")], {"transcript": "0b" * 32}, "it belongs to another transcript"),
        ([SegmentChange(0, 0, "x")], {"transcript": "0a" * 32}, "it belongs to another transcript"),  # the recording's
        ([SegmentChange(2, 3, "x")], {}, "there is no segment 3 in this transcript of 3"),
        ([SegmentChange(0, 0, speaker="Bob")], {}, "nobody is called Bob in this transcript"),
        ([SegmentChange(0, 0, speaker="Ben")], {"speakers": {"Ben": "Benno"}}, "nobody is called Ben in this"),
    ],
)
def test_what_does_not_fit_is_refused(segments, correction, reason):
    """With what is wrong."""
    with pytest.raises(CorrectionRefused) as refused:
        corrected(*segments, **correction)

    assert reason in str(refused.value)


@pytest.mark.parametrize("text", ["x" * 5000, " ".join("ab" * 2500), "a" * 4000 + " b" * 500])
def test_a_long_text_of_few_letters_takes_no_time(text):
    """Comparing is bounded: no text holds up the process that renders, and no character is lost."""
    talk = Transcript(
        text, (Segment(0.0, 9.0, text, words=words(0, *(f" {each}" for each in text.split())), speaker="A"),), "en"
    )
    files = corrected(SegmentChange(0, 0, text[::-1]), document=recorded(talk))

    assert said(files)[0][2].split() == text[::-1].split()
    assert " ".join(word.strip() for word, _, _ in timed(files, 0)) == text[::-1].strip()
