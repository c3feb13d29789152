"""What `whisperd bench` reckons: word errors, operations, spreads, tables; no program is started."""

import io
import json
from pathlib import Path

import jiwer
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from whisper.model import ModelDimensions

from whisperd import cli
from whisperd.bench import contest, floor, report, wer
from whisperd.bench.contest import Spread, compete, figures, language_of
from whisperd.bench.corpus import ReferenceRecording, find_recordings
from whisperd.bench.machine import Machine, ModelSpeed, is_here, reckon
from whisperd.bench.peer import Heard
from whisperd.bench.systems import SystemRun, missing
from whisperd.core.errors import WhisperdError
from whisperd.engine.weights.catalogue import OFFICIAL
from whisperd.settings import config

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=12)


# Recordings


def test_recordings_are_files_with_their_words_beside_them(tmp_path):
    """At any depth; a folder named by a language code says what is spoken; other files do not count."""
    for name in ("b.ogg", "b.txt", "b.json", "fr/a.mp3", "fr/a.txt", "alone.wav", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(" some words\n")

    found = find_recordings(tmp_path)

    assert [(str(one.path.relative_to(tmp_path)), one.language) for one in found] == [
        ("b.ogg", None),
        ("fr/a.mp3", "fr"),
    ]
    assert found[0].reference == "some words"


def test_a_folder_without_recordings_is_an_error(tmp_path):
    """Whose hint says what belongs there."""
    with pytest.raises(WhisperdError, match="no recordings") as caught:
        find_recordings(tmp_path)

    assert "x.txt" in caught.value.hint


# Word errors


@given(WORDS, st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12))
def test_word_errors_are_those_of_jiwer(said, heard):
    """The fewest insertions, deletions and substitutions."""
    counted = jiwer.process_words(" ".join(said), " ".join(heard))

    assert wer.distance(said, heard) == counted.substitutions + counted.deletions + counted.insertions


@pytest.mark.parametrize(
    ("reference", "text", "language", "expected"),
    [
        pytest.param(
            "Mr. Smith's colour, twenty one!", "mister smith's color 21", "en", (0, 5), id="English spellings"
        ),
        pytest.param("Où est-il ?", "ou est il", "fr", (1, 3), id="accents count"),
        pytest.param("こんにちは", "こんにちわ", "ja", (1, 5), id="characters without spaces"),
        pytest.param("red green", "", "en", (2, 2), id="nothing heard"),
    ],
)
def test_texts_are_compared_after_normalisation(reference, text, language, expected):
    """Case, punctuation and, in English, ways to write a number are no errors."""
    errors = wer.compare(reference, text, language)

    assert (errors.wrong, errors.words) == expected


def test_long_recordings_count_for_more():
    """One error rate over all words, not the mean of rates."""
    both = wer.total([wer.Errors(1, 1), wer.Errors(0, 99)])

    assert both.rate == 1.0
    assert wer.total([]).rate is None


# Operations


@pytest.mark.parametrize("model", OFFICIAL)
def test_every_official_model_has_dimensions(model):
    """So that each can be reckoned; more layers and width are more work."""
    size = floor.dimensions(model)

    assert floor.operations(size) >= floor.operations(floor.dimensions("tiny"))


def test_operations_are_counted_as_torch_counts_them():
    """Within a few percent: what is left out is not a matrix product."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415
    from whisper import Whisper  # noqa: PLC0415

    size = floor.dimensions("tiny")
    model = Whisper(ModelDimensions(80, 1500, 384, 6, 4, 51865, 448, 384, 6, 4))
    encoder, decoder = model.encoder.to("meta"), model.decoder.to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tokens = torch.zeros(1, floor.TOKENS_PER_WINDOW, dtype=torch.long, device="meta")
        decoder(tokens, encoder(torch.zeros(1, 80, 3000, device="meta")))

    assert floor.operations(size) == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_an_unknown_model_has_no_floor():
    """Nothing is made up for a checkpoint of the user's own."""
    assert floor.dimensions("/models/mine.pt") is None


def test_a_model_is_reckoned_from_the_nearest_that_was_measured():
    """By the operations of both."""
    measured = [ModelSpeed("tiny.en", 90.0, True, 1, None), ModelSpeed("base", 40.0, True, 1, None)]

    small = reckon("small", measured, rate=1e12)

    ratio = floor.operations(floor.dimensions("base")) / floor.operations(floor.dimensions("small"))
    assert small.speed == pytest.approx(40.0 * ratio)
    assert not small.measured
    assert reckon("small", [ModelSpeed("mine.pt", 9.0, True, 1, None)], rate=1e12) is None


# The contest


class Fake:
    """A system that takes as long as it is told to."""

    def __init__(self, name, seconds, text="red green", journal=None, broken=False):
        self.name, self.seconds, self.text = name, iter(seconds), text
        self.journal = [] if journal is None else journal
        self.broken = broken

    def run(self, recordings):
        self.journal.append(self.name)
        if self.broken:
            raise WhisperdError(f"{self.name} fell over")
        heard = tuple(Heard(self.text, "en") for _ in recordings)
        return SystemRun(next(self.seconds), 1.0, heard, 5 << 20, "", tuple(10.0 for _ in recordings))


RECORDINGS = [ReferenceRecording(Path("a.ogg"), "red green", None), ReferenceRecording(Path("b.ogg"), "red blue", None)]


def test_systems_take_turns():
    """The first of one round is the last of the next."""
    journal = []
    systems = [Fake("a", [1, 1, 1], journal=journal), Fake("b", [1, 1, 1], journal=journal)]

    compete(systems, RECORDINGS, 3, lambda _: None)

    assert journal == ["a", "b", "b", "a", "a", "b"]


def test_figures_are_of_rounds():
    """Speed with its spread, and ratios within each round, where both met the same machine."""
    ours, theirs = Fake("whisperd", [1.0, 2.0, 4.0]), Fake("other", [3.0, 4.0, 4.0], text="red")
    ran = compete([ours, theirs], RECORDINGS, 3, lambda _: None)

    whisperd, other = figures(ran, RECORDINGS, None)

    assert whisperd.speed == Spread(5.0, 10.0, 20.0)
    assert whisperd.ahead is None
    assert other.ahead == Spread(1.0, 2.0, 3.0)
    assert (whisperd.errors.rate, other.errors.rate) == (25.0, 50.0)


def test_a_broken_peer_leaves_the_contest_and_says_why():
    """The others go on."""
    ran = compete([Fake("whisperd", [1.0, 1.0]), Fake("other", [], broken=True)], RECORDINGS, 2, lambda _: None)

    assert list(ran.runs) == ["whisperd"]
    assert ran.broken == {"other": "other fell over"}


def test_without_whisperd_there_is_no_contest():
    """All others are compared with it."""
    with pytest.raises(WhisperdError, match="fell over"):
        compete([Fake("whisperd", [], broken=True), Fake("other", [1.0])], RECORDINGS, 1, lambda _: None)


@pytest.mark.parametrize(
    ("heard", "language"),
    [(["fr", "en", "en"], "en"), (["fr", "en"], "fr"), (["", "it"], "it"), ([""], "")],
    ids=["most", "a tie", "one says nothing", "nobody says"],
)
def test_most_systems_decide_the_language(heard, language):
    """In which the texts are compared."""
    assert language_of(heard) == language


# Tables


MACHINE = Machine("a processor", 2, {"fp32": 100e9, "bf16": 300e9})


def printed(table):
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_the_table_fits_a_terminal():
    """Nothing is cut off at 80 columns."""
    ran = compete([Fake("whisperd", [1.0]), Fake("openai-whisper", [10.0])], RECORDINGS, 1, lambda _: None)

    text = printed(report.contest_table(figures(ran, RECORDINGS, "en")))

    assert "openai-whisper" in text
    assert "x20.0 (20.0-20.0)" in text
    assert "10.00 (10.00-10.00)" in text
    assert "25.0 %" in text


def test_estimates_are_called_so():
    """Nobody takes them for a measurement."""
    models = [ModelSpeed("base", 40.4, True, 5 << 20, 110.0), ModelSpeed("large-v3", 0.5, False, None, 3.0)]

    text = printed(report.models_table(models))

    base, large = (next(line for line in text.splitlines() if name in line) for name in ("base", "large-v3"))
    assert "measured" in base
    assert "40 at once" in base
    assert "estimate" in large
    assert " no " in large


def test_the_document_is_plain_json():
    """For programs: the same figures, and the floor."""
    ran = compete([Fake("whisperd", [1.0]), Fake("other", [2.0])], RECORDINGS, 1, lambda _: None)
    found = report.document(MACHINE, "base", figures=figures(ran, RECORDINGS, "en"), absent={"x": "why"}, rounds=1)

    read = json.loads(json.dumps(found))

    assert read["systems"][1]["whisperd_is_faster_by"]["median"] == 2.0
    assert read["floor_speed"] == pytest.approx(floor.fastest_speed(floor.dimensions("base"), 300e9))
    assert (read["rounds"], read["not_here"]) == (1, {"x": "why"})


# The command line


def test_unknown_programs_are_refused(capsys):
    """With those that are known."""
    with pytest.raises(SystemExit) as caught:
        cli.parser().parse_args(["bench", "--against", "openai-whisper,siri"])

    assert caught.value.code == 2
    assert "unknown: siri" in capsys.readouterr().err


def test_what_is_not_here_says_why(tmp_path, monkeypatch):
    """A program, or weights for it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    settings = config.load(root=tmp_path, model="medium", models_directory=str(tmp_path))

    assert missing("whisper.cpp", settings) == "whisper-cli is not on PATH"
    assert "medium" in missing("openai-whisper", settings)
    assert not is_here("medium", settings)
    assert contest.Contest().broken == {}
