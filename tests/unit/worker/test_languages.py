"""The languages of parts of a recording: groups, hysteresis, and which windows are decided together."""

from __future__ import annotations

import pytest

from whisperd.engine.api import SAMPLE_RATE
from whisperd.worker.languages import RecordingLanguages, grouped, spoken


def seconds(*pairs):
    return [(int(start * SAMPLE_RATE), int(end * SAMPLE_RATE)) for start, end in pairs]


def parts(*heard):
    """Neighbouring parts, each as its length in seconds and what was heard in it."""
    result, at = [], 0.0
    for length, chances in heard:
        result.append((seconds((at, at + length))[0], chances))
        at += length
    return result


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        pytest.param([(9, {"fr": 0.99}), (0.6, {"en": 0.99}), (9, {"fr": 0.99})], "fr fr fr", id="one word"),
        pytest.param([(9, {"fr": 0.99}), (9, {"en": 0.99}), (9, {"fr": 0.99})], "fr en fr", id="a paragraph"),
        pytest.param([(3, {"en": 0.9}), (3, {"en": 0.9}), (9, {"fr": 0.99})], "en en fr", id="at the start"),
        pytest.param([(3, {"en": 0.9}), (1, {"ja": 0.9}), (3, {"en": 0.9})], "en en en", id="within another language"),
        pytest.param([(9, {"nn": 0.45, "cy": 0.2, "fr": 0.01})], "fr", id="noise sounds a little like Norwegian"),
        pytest.param([(6, {"bs": 0.55, "hr": 0.44})] * 2, "hr hr", id="a language that is hardly another"),
        pytest.param([(9, {})], "fr", id="nothing heard"),
        pytest.param([], "", id="nothing"),
    ],
)
def test_a_change_of_language_must_be_worth_its_cost(heard, expected):
    """The main language is French, or Croatian where that is heard."""
    main = "hr" if any("hr" in chances for _, chances in heard) else "fr"

    assert spoken(parts(*heard), main) == expected.split()


def test_a_long_part_does_not_drown_out_a_short_one():
    """Short ones are joined to each other, since little can be told from 1.5 s."""
    assert grouped(seconds((0, 3.5), (4, 15))) == tuple(seconds((0, 3.5), (4, 15)))
    assert grouped(seconds((0, 1.5), (2, 3.5), (4, 5.5), (6, 7.6))) == tuple(seconds((0, 7.6)))


def windows(*heard, channels=None):
    """A recording in French whose windows of 10 s have two parts of 5 s, of which this was heard."""
    own = [
        tuple(seconds((10 * number, 10 * number + 5), (10 * number + 5, 10 * number + 10)))
        for number in range(len(heard))
    ]
    languages = RecordingLanguages(list(zip(own, channels or [0] * len(heard), strict=True)))
    for window, pair in zip(languages.windows, heard, strict=True):
        window.heard = None if pair is None else tuple({language: 0.9 if language else 0.0} for language in pair)
    return languages


CLEAR, OTHER, UNSURE = ("fr", "fr"), ("fr", "en"), ("fr", "")


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        pytest.param([CLEAR, OTHER, CLEAR], [1], id="the window with another language"),
        pytest.param([CLEAR, CLEAR, UNSURE], [], id="none, without another language"),
        pytest.param([UNSURE, UNSURE, OTHER, CLEAR, UNSURE], [0, 1, 2], id="those beside it that are not clear"),
        pytest.param([UNSURE, None, OTHER], [2], id="not across a window that is not decoded yet"),
    ],
)
def test_only_doubtful_windows_are_heard_part_by_part(heard, expected):
    """Each part once."""
    languages = windows(*heard)

    assert list(languages.wanted("fr")) == [(number, part) for number in expected for part in (0, 1)]
    assert list(languages.wanted("fr")) == []


def test_neighbours_are_decided_together_once_the_windows_around_them_are_known():
    """The decision does not depend on which window is decoded first."""
    languages = windows(CLEAR, OTHER, OTHER, None)
    list(languages.wanted("fr"))
    for number in (1, 2):
        languages.windows[number].alone = {0: {"fr": 0.9}, 1: {"en": 0.9}}
    assert list(languages.decide("fr", lambda _: True)) == []

    languages.windows[3].heard = ({"fr": 0.9},)
    assert list(languages.decide("fr", lambda number: number != 2)) == []
    decided = dict(languages.decide("fr", lambda _: True))
    assert {number: [language for *_, language in own] for number, own in decided.items()} == {
        1: ["fr", "en"],
        2: ["fr", "en"],
    }
    assert list(languages.decide("fr", lambda _: True)) == []


def test_channels_are_no_neighbours():
    """What one speaker says changes nothing about another one."""
    languages = windows(UNSURE, OTHER, channels=[0, 1])

    assert {number for number, _ in languages.wanted("fr")} == {1}
    assert list(languages.decide("fr", lambda _: True)) == []
    assert languages.is_settled(0, "fr")
    assert not languages.is_settled(1, "fr")


def test_what_is_unmistakable_is_not_heard_part_by_part():
    """Several groups in the same other language."""
    whole = tuple(seconds((10, 15), (15, 20), (20, 25)))
    languages = RecordingLanguages([(tuple(seconds((0, 5))), 0), (whole, 0)])
    languages.windows[0].heard = ({"fr": 0.9},)
    languages.windows[1].heard = ({"en": 0.9},) * 3

    assert list(languages.wanted("fr")) == []
    assert list(languages.decide("fr", lambda _: True)) == [(1, [(*seconds((10, 25))[0], "en")])]
