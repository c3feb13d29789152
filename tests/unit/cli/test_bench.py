"""The arguments of `whisperd bench`, and its figures as tables and as a document."""

import io
import json

import pytest
from rich.console import Console
from support.bench import RECORDINGS, Fake

from whisperd import cli
from whisperd.bench.comparison import compare_systems, figures_of
from whisperd.bench.diarization import DiarizationError, DiarizationFigures
from whisperd.bench.machine import Machine, ModelSpeed, dimensions, fastest_speed
from whisperd.cli.bench import comparison_table, diarization_lines, document, models_table

MACHINE = Machine("a processor", 2, {"fp32": 100e9, "bf16": 300e9})


def printed(table):
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_unknown_programs_are_refused(capsys):
    """With those that are known."""
    with pytest.raises(SystemExit) as caught:
        cli.parser().parse_args(["bench", "--against", "openai-whisper,siri"])

    assert caught.value.code == 2
    assert "unknown: siri" in capsys.readouterr().err


def test_the_table_fits_a_terminal():
    """Nothing is cut off at 80 columns."""
    ran = compare_systems([Fake("whisperd", [1.0]), Fake("openai-whisper", [10.0])], RECORDINGS, 1, lambda _: None)

    text = printed(comparison_table(figures_of(ran, RECORDINGS, "en")))

    assert "openai-whisper" in text
    assert "x20.0 (20.0-20.0)" in text
    assert "10.00 (10.00-10.00)" in text
    assert "25.0 %" in text


def test_estimates_are_called_so():
    """Nobody takes them for a measurement."""
    models = [ModelSpeed("base", 40.4, True, 5 << 20, 110.0), ModelSpeed("large-v3", 0.5, False, None, 3.0)]

    text = printed(models_table(models))

    base, large = (next(line for line in text.splitlines() if name in line) for name in ("base", "large-v3"))
    assert "measured" in base
    assert "40 at once" in base
    assert "estimate" in large
    assert " no " in large


def test_the_document_is_plain_json():
    """For programs: the same figures, and the floor."""
    ran = compare_systems([Fake("whisperd", [1.0]), Fake("other", [2.0])], RECORDINGS, 1, lambda _: None)
    found = document(MACHINE, "base", figures=figures_of(ran, RECORDINGS, "en"), absent={"x": "why"}, rounds=1)

    read = json.loads(json.dumps(found))

    assert read["systems"][1]["whisperd_is_faster_by"]["median"] == 2.0
    assert read["floor_speed"] == pytest.approx(fastest_speed(dimensions("base"), 300e9))
    assert (read["rounds"], read["not_here"]) == (1, {"x": "why"})


def test_the_error_rate_of_diarization_is_given_with_its_parts():
    """As lines for people and as plain values for programs."""
    error = DiarizationError(speech=200.0, missed=10.0, false_alarm=6.0, confusion=4.0)
    figures = DiarizationFigures(5, 300.0, error, DiarizationError(180.0, 3.6, 0.0, 0.0), 4, 1.5)

    lines = diarization_lines(figures)
    values = document(MACHINE, "base", diarization=figures)["diarization"]

    assert "DER 10.0 % (missed 5.0 %, false alarm 3.0 %, confusion 2.0 %); 2.0 % with a collar" in lines[0]
    assert lines[1] == "number of people right in 4 of 5; x200, without transcribing"
    assert (values["der"], values["der_with_collar"], values["right_numbers"]) == (10.0, 2.0, 4)
    assert (values["missed"], values["false_alarm"], values["confusion"]) == (5.0, 3.0, 2.0)


def test_silence_has_no_error_rate():
    """Which JSON can say."""
    nothing = DiarizationError(0.0, 0.0, 0.0, 0.0)
    values = document(MACHINE, "base", diarization=DiarizationFigures(1, 3.0, nothing, nothing, 1, 0.1))

    assert json.loads(json.dumps(values, allow_nan=False))["diarization"]["der"] is None
