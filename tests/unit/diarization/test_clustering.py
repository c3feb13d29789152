"""Grouping of voices: how many people there are, with vectors that are voices plus as much noise as measured ones have."""

from __future__ import annotations

import numpy as np
import pytest

from whisperd.diarization.clustering import (
    LEAST_LIKENESS,
    NARROW_CENTRE,
    NOISE_SECONDS,
    HeardVoice,
    Pieces,
    VoicePrint,
    group,
    likeness,
    recognize,
)

SIZE = 192


def people(count, rng, shared=0.1):
    """Voices of length 1 with this cosine between two of them."""
    common = rng.normal(size=SIZE)
    own = np.linalg.qr(np.stack([common, *rng.normal(size=(count, SIZE))]).T)[0].T
    return np.sqrt(shared) * own[0] + np.sqrt(1 - shared) * own[1 : count + 1]


def pieces(voices, order, rng, seconds=None):
    """Pieces of speech of these people in turn, two in each window."""
    order = np.asarray(order)
    seconds = rng.uniform(1.0, 2.0, len(order)) if seconds is None else np.full(len(order), seconds)
    noise = rng.normal(size=(len(order), SIZE)) / np.sqrt(SIZE)
    vectors = voices[order] + noise * np.sqrt(NOISE_SECONDS / seconds)[:, None]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Pieces(
        vectors.astype(np.float32),
        seconds.astype(np.float32),
        np.arange(len(order)) // 2,
        np.arange(len(order)) % 2,
    )


def same_partition(found, expected):
    return len(set(zip(found.tolist(), expected, strict=True))) == len(set(expected)) == len(set(found.tolist()))


@pytest.mark.parametrize("count", [1, 2, 3, 6])
@pytest.mark.parametrize("rounds", [3, 20])
def test_everybody_is_found_in_short_and_long_recordings(count, rounds):
    """The number of people does not depend on how long they speak."""
    rng = np.random.default_rng(count)
    order = list(range(count)) * rounds

    assert same_partition(group(pieces(people(count, rng), order, rng), 1, None), order)


@pytest.mark.parametrize("count", [2, 4])
def test_voices_on_the_telephone_are_told_apart(count):
    """A narrow band makes all voices alike; what they share is measured on the recording itself."""
    rng = np.random.default_rng(7)
    order = list(range(count)) * 12

    assert same_partition(group(pieces(people(count, rng, shared=0.55), order, rng), 1, None), order)


def test_two_at_once_are_nobody_of_their_own():
    """A piece in which two people speak has a vector between theirs."""
    rng = np.random.default_rng(3)
    voices = people(2, rng)
    both = (voices[0] + voices[1]) / np.linalg.norm(voices[0] + voices[1])
    found = group(pieces(np.stack([*voices, both]), [0, 1] * 8 + [2], rng), 1, None)

    assert len(set(found.tolist())) == 2


@pytest.mark.parametrize(("least", "most", "expected"), [(1, 2, 2), (5, None, 5), (4, 4, 4), (3, 3, 3), (1, 1, 1)])
def test_bounds_are_kept(least, most, expected):
    """Whoever says how many people there are is believed."""
    rng = np.random.default_rng(5)
    found = group(pieces(people(3, rng), [0, 1, 2] * 8, rng), least, most)

    assert len(set(found.tolist())) == expected


def test_more_people_than_pieces_are_not_invented():
    """Three people are asked for, but there are two pieces of speech."""
    rng = np.random.default_rng(5)

    assert len(group(pieces(people(2, rng), [0, 1], rng), 3, 3)) == 2


def test_a_long_recording_is_grouped_by_a_part_of_its_voices(monkeypatch):
    """Time does not grow with the cube of the length, and every piece still gets its person."""
    monkeypatch.setattr("whisperd.diarization.clustering.MOST_JOINED", 40)
    rng = np.random.default_rng(9)
    order = [0, 1, 2] * 200

    found = group(pieces(people(3, rng), order, rng), 1, None)

    assert (np.array([found[0], found[1], found[2]] * 200) == found).mean() > 0.99


def test_hours_of_speech_invent_nobody():
    """Odd pieces, such as laughter, gather in a long recording; each is given to somebody who is there."""
    rng = np.random.default_rng(11)
    voices = np.concatenate([people(4, rng), people(20, rng)])

    found = group(pieces(voices, [*([0, 1, 2, 3] * 200), *range(4, 24)], rng, seconds=2.0), 1, None)

    assert len(set(found.tolist())) == 4


def test_many_vectors_of_one_voice_stay_one():
    """Whatever is measured on a recording, its length alone changes no decision."""
    rng = np.random.default_rng(13)

    assert set(group(pieces(people(1, rng), [0] * 900, rng), 1, None).tolist()) == {0}


def prints(vectors):
    return [VoicePrint(vector * 20.0, 20.0) for vector in vectors]


def heard(voices, order, rng, seconds=2.0):
    """The pieces of one person, each of whom it really is."""
    own = pieces(voices, order, rng, seconds)
    return HeardVoice(own.vectors, own.seconds)


@pytest.mark.parametrize("is_narrow", [False, True])
def test_known_voices_are_recognized_and_strangers_are_not(is_narrow):
    """Whatever the order, and with the noise of real speech."""
    rng = np.random.default_rng(5)
    voices = people(5, rng)
    if is_narrow:  # what all have in common there
        voices = voices + 2 * NARROW_CENTRE
        voices /= np.linalg.norm(voices, axis=1, keepdims=True)
    present = [heard(voices, [number] * 10, rng) for number in (3, 0, 4)]

    found = recognize(likeness(present, prints(voices[:4]), is_narrow=is_narrow))

    assert sorted((person, voice) for person, voice, _ in found) == [(0, 3), (1, 0)]
    assert all(LEAST_LIKENESS <= score <= 1.0 for _, _, score in found)


@pytest.mark.parametrize(("order", "is_known"), [([0] * 10, True), ([0] * 9 + [1], True), ([0] * 6 + [1] * 4, False)])
def test_two_who_were_taken_for_one_have_no_name(order, is_known):
    """Their mean may be like the voice of one; a single odd piece does no harm."""
    rng = np.random.default_rng(5)
    voices = people(2, rng)
    present = [heard(voices, order, rng)]

    assert bool(recognize(likeness(present, prints(voices[:1]), is_narrow=False))) == is_known


def test_who_says_too_little_is_not_recognized():
    """A second of speech is as much noise as voice."""
    voices = people(2, np.random.default_rng(5))

    def found(seconds):
        person = HeardVoice(voices[:1], np.array([seconds]))
        return recognize(likeness([person], prints(voices), is_narrow=False))

    assert found(1.9) == []
    assert [(person, voice) for person, voice, _ in found(2.1)] == [(0, 0)]


def test_a_name_is_given_once_and_a_person_has_one():
    """The best score wins; whoever is left stays a number, unless another known voice is like enough."""
    scores = np.array([[0.8, 0.9, 0.1], [0.7, 0.95, 0.2], [0.85, 0.3, 0.1]])

    assert recognize(scores) == [(1, 1, 0.95), (2, 0, 0.85)]


def test_below_the_threshold_nobody_is_recognized():
    """At it, somebody is."""
    assert recognize(np.array([[LEAST_LIKENESS]])) == [(0, 0, LEAST_LIKENESS)]
    assert recognize(np.array([[LEAST_LIKENESS - 1e-6]])) == []
    assert recognize(np.zeros((2, 0))) == []
    assert recognize(np.zeros((0, 2))) == []
