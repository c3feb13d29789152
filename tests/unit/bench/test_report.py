"""Figures as tables and as a document."""

import io
import json

import pytest
from rich.console import Console
from support.bench import RECORDINGS, Fake

from whisperd.bench import report
from whisperd.bench.comparison import compare_systems, figures_of
from whisperd.bench.machine import Machine, ModelSpeed, dimensions, fastest_speed

MACHINE = Machine("a processor", 2, {"fp32": 100e9, "bf16": 300e9})


def printed(table):
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_the_table_fits_a_terminal():
    """Nothing is cut off at 80 columns."""
    ran = compare_systems([Fake("whisperd", [1.0]), Fake("openai-whisper", [10.0])], RECORDINGS, 1, lambda _: None)

    text = printed(report.comparison_table(figures_of(ran, RECORDINGS, "en")))

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
    ran = compare_systems([Fake("whisperd", [1.0]), Fake("other", [2.0])], RECORDINGS, 1, lambda _: None)
    found = report.document(MACHINE, "base", figures=figures_of(ran, RECORDINGS, "en"), absent={"x": "why"}, rounds=1)

    read = json.loads(json.dumps(found))

    assert read["systems"][1]["whisperd_is_faster_by"]["median"] == 2.0
    assert read["floor_speed"] == pytest.approx(fastest_speed(dimensions("base"), 300e9))
    assert (read["rounds"], read["not_here"]) == (1, {"x": "why"})
