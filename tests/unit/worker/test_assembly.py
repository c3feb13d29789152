"""Assembling a transcript: order, language vote, undecoded ends, progress, speakers, whole recordings."""

from __future__ import annotations

import itertools

import pytest

from whisperd.core.transcript import Segment, Word
from whisperd.engine.api import SAMPLE_RATE, DecodedWindow
from whisperd.worker.assembly import VOTERS, Assembly


def decoded(text="hi", language="en", probability=None, covered=10.0, *, silent=False, start=0.5, end=2.0):
    words = (Word(start, end, f" {text}", 0.9),)
    segments = () if silent else (Segment(start, end, f" {text}", avg_logprob=-0.2, words=words),)
    return DecodedWindow(
        language, probability, segments, covered, 0.0, -0.2, 1.0, 0.1, silent=silent, attempts=1, looped=False
    )


def seconds(*pairs):
    return [(int(start * SAMPLE_RATE), int(end * SAMPLE_RATE)) for start, end in pairs]


def run(assembly, answer):
    """Decode everything in the order in which it is handed out; returns the pieces."""
    pieces = []
    while (piece := assembly.next()) is not None:
        pieces.append(piece)
        assembly.take(piece, answer(piece))
    assert assembly.is_done
    return pieces


def test_text_is_in_the_order_and_time_of_the_recording():
    """Whatever order the windows are finished in."""
    assembly = Assembly(seconds((1, 11), (12, 22), (30, 40)), 50 * SAMPLE_RATE, "en")
    pieces = [assembly.next() for _ in range(3)]
    for piece in reversed(pieces):
        assembly.take(piece, decoded(f"w{piece.index}"))
    transcript = assembly.transcript()

    assert transcript.text == " w0 w1 w2"
    assert [segment.start for segment in transcript.segments] == [1.5, 12.5, 30.5]
    assert transcript.segments[2].words[0].end == 32.0
    assert transcript.segments[1].seek == 1200


def test_no_time_lies_behind_the_end():
    """A model may place an end in the padding."""
    assembly = Assembly(seconds((0, 3)), 3 * SAMPLE_RATE, "en")
    run(assembly, lambda _: decoded(end=9.0))

    assert assembly.transcript().segments[0].end == 3.0


def test_the_language_is_voted_for_by_windows_from_everywhere():
    """A recording that begins in one language and goes on in another is not taken for the first."""
    windows = seconds(*((10 * number, 10 * number + 10) for number in range(20)))
    assembly = Assembly(windows, 200 * SAMPLE_RATE, None)
    pieces = run(
        assembly, lambda piece: decoded(language=piece.language or ("en" if piece.index < 4 else "fr"), probability=0.9)
    )
    first = [piece.index for piece in pieces[:VOTERS]]

    assert assembly.language == "fr"
    assert first == [0, 4, 8, 12, 16]
    assert all(piece.language is None for piece in pieces[:VOTERS])
    again = [piece for piece in pieces[VOTERS:] if piece.index in first]
    assert [(piece.index, piece.language) for piece in again] == [(0, "fr")]
    assert assembly.transcript().quality["language_votes"] == {"en": 9.0, "fr": 36.0}
    assert assembly.transcript().language_probability == 0.8


def test_a_silent_voter_has_no_vote():
    """Silence sounds like English to the model."""
    assembly = Assembly(seconds((0, 10), (10, 20)), 20 * SAMPLE_RATE, None)
    run(assembly, lambda piece: decoded(language="en" if piece.index == 0 else "de", silent=piece.index == 0))

    assert assembly.language == "de"


def test_nothing_but_silence_ends_too():
    """No vote at all is no reason to wait for ever."""
    assembly = Assembly(seconds((0, 10)), 10 * SAMPLE_RATE, None)
    run(assembly, lambda _: decoded(silent=True))

    assert assembly.transcript().text == ""


def test_no_windows_is_done_at_once():
    """VAD found nobody speaking."""
    assembly = Assembly([], 10 * SAMPLE_RATE, None)

    assert assembly.next() is None
    assert assembly.is_done
    assert assembly.processed_seconds == 10.0
    assert assembly.transcript().quality["dropped_seconds"] == 10.0


def test_what_a_window_left_undecoded_is_decoded_as_a_window_of_its_own():
    """The model stopped at 4 s of 10: the other 6 s must not be lost."""
    assembly = Assembly(seconds((0, 10)), 10 * SAMPLE_RATE, "en")
    pieces = run(assembly, lambda piece: decoded("a", covered=4.0) if piece.start == 0 else decoded("b", covered=6.0))

    assert [(piece.start, piece.end) for piece in pieces] == seconds((0, 10), (4, 10))
    assert assembly.transcript().text == " a b"
    assert assembly.transcript().segments[1].start == 4.5


def test_a_window_that_covers_nothing_is_not_decoded_for_ever():
    """No progress, no second look."""
    assembly = Assembly(seconds((0, 10)), 10 * SAMPLE_RATE, "en")

    assert len(run(assembly, lambda _: decoded(covered=0.0))) == 1


def test_progress_counts_the_silence_before_a_window_with_it():
    """It never goes back, and at the end it is the whole length."""
    assembly = Assembly(seconds((5, 10), (20, 30)), 60 * SAMPLE_RATE, "en")
    first, second = assembly.next(), assembly.next()
    assembly.take(first, decoded(covered=5.0))

    assert assembly.processed_seconds == 10.0
    assembly.take(second, decoded(covered=10.0))
    assert assembly.processed_seconds == 60.0


@pytest.mark.parametrize("count", range(1, 12))
def test_every_window_is_decoded_exactly_once_where_all_agree(count):
    """The vote costs nothing then."""
    assembly = Assembly(seconds(*((number, number + 1) for number in range(count))), count * SAMPLE_RATE, None)
    pieces = run(assembly, lambda _: decoded(probability=0.9, covered=1.0))

    assert sorted(piece.index for piece in pieces) == list(range(count))


def final(assembly):
    return [segment.text for segment in assembly.final()]


def test_what_is_final_has_no_gap_before_it():
    """A window is final once it and all before it are finished, what they left undecoded too."""
    assembly = Assembly(seconds((1, 11), (12, 22), (30, 40)), 50 * SAMPLE_RATE, "en")
    first, second, third = (assembly.next() for _ in range(3))
    assembly.take(third, decoded("c"))
    assembly.take(first, decoded("a", covered=4.0))
    assert final(assembly) == []
    assembly.take(assembly.next(), decoded("b", covered=6.0))
    assert final(assembly) == [" a", " b"]
    assembly.take(second, decoded(silent=True))

    assert final(assembly) == [" a", " b", " c"]
    assert [segment.start for segment in assembly.final()] == [1.5, 5.5, 30.5]


def test_nothing_is_settled_while_the_vote_is_on():
    """A window may be decoded again in another language; what is settled never changes."""
    assembly = Assembly(seconds((0, 10), (10, 20), (20, 30)), 30 * SAMPLE_RATE, None)
    for language in ("fr", "en", "en"):
        assert final(assembly) == []
        assembly.take(assembly.next(), decoded(language, language, 0.9))
    assert final(assembly) == []
    assembly.take(assembly.next(), decoded("again"))

    assert final(assembly) == [" again", " en", " en"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_what_is_settled_of_several_speakers_is_the_beginning_of_the_end(order):
    """Their words are put in order, so one who is not that far yet may come before another's."""
    windows = seconds((0, 10), (15, 25), (32, 42), (42, 52))
    assembly = Assembly(windows, 60 * SAMPLE_RATE, "en", ("A", "B"))
    pieces = [assembly.next() for _ in windows]
    seen = []
    for index in order:
        assembly.take(pieces[index], decoded(str(index), end=9.0))
        seen.append(final(assembly))

    assert seen[-1] == [segment.text for segment in assembly.transcript().segments] == [" 0", " 2", " 3", " 1"]
    assert all(later[: len(earlier)] == earlier for earlier, later in itertools.pairwise(seen))


def too_long(text, start, end):
    """A window whose only segment claims to be longer than it is."""
    segments = (Segment(start, end, f" {text}", avg_logprob=-0.2),)
    return DecodedWindow("en", None, segments, 99.0, 0.0, -0.2, 1.0, 0.0, silent=False, attempts=1, looped=False)


def test_windows_of_several_channels_are_placed_in_the_time_of_each():
    """In a batch the channels come one after the other; times, and progress, are those of the recording."""
    ten = 10 * SAMPLE_RATE
    windows = [(0, 2 * SAMPLE_RATE), (5 * SAMPLE_RATE, ten), (ten, ten + 3 * SAMPLE_RATE)]
    assembly = Assembly(windows, 2 * ten, "en", ("L", "R"))
    done = []
    while (piece := assembly.next()) is not None:
        assembly.take(piece, too_long(str(piece.index), start=0.5, end=99.0))
        done.append(assembly.processed_seconds)

    assert [(each.speaker, each.start, each.end) for each in assembly.transcript().segments] == [
        ("L", 0.5, 10.0), ("R", 0.5, 10.0), ("L", 5.5, 10.0),
    ]  # fmt: skip
    assert done == [1.0, 5.0, 10.0]


def test_of_whole_recordings_the_text_is_in_the_order_in_which_it_was_said():
    """The language is that of whoever said most."""
    ten = 10 * SAMPLE_RATE
    left = (Segment(0.0, 1.0, " hi"), Segment(5.0, 6.0, " good"))
    right = (Segment(2.0, 3.0, " allo"), Segment(7.0, 8.0, " oui bien sûr"))
    assembly = Assembly([(0, ten), (ten, 2 * ten)], 2 * ten, "fr", ("L", "R"), whole=True)
    first, second = assembly.next(), assembly.next()
    assembly.take(first, DecodedWindow("en", 0.7, left, covered_seconds=10.0))
    assert assembly.processed_seconds == 5.0
    assembly.take(second, DecodedWindow("fr", 0.9, right, covered_seconds=10.0))

    transcript = assembly.transcript()

    assert [(each.speaker, each.text) for each in transcript.segments] == [
        ("L", " hi"), ("R", " allo"), ("L", " good"), ("R", " oui bien sûr"),
    ]  # fmt: skip
    assert (transcript.text, transcript.language) == (" hi allo good oui bien sûr", "fr")
    assert transcript.language_probability == 0.9
    assert (first.language, second.language) == (None, None)


def test_of_a_whole_recording_the_engine_decides_the_language():
    """It is asked once and not voted for, and windows keep their place in openai-whisper's JSON."""
    assembly = Assembly([(0, 60 * SAMPLE_RATE)], 60 * SAMPLE_RATE, None, whole=True)
    piece = assembly.next()
    segments = (Segment(30.0, 31.5, " hello", seek=3000),)
    assembly.take(piece, DecodedWindow("cy", 0.4, segments, covered_seconds=60.0))

    transcript = assembly.transcript()

    assert assembly.is_done
    assert (transcript.language, transcript.language_probability, transcript.segments) == ("cy", 0.4, segments)


def test_a_whole_recording_without_a_sample_is_assembled_too():
    """Nothing to decode is no error."""
    assembly = Assembly([(0, 0)], 0, None, whole=True)
    piece = assembly.next()
    assert assembly.final() == ()
    assembly.take(piece, DecodedWindow("", None, (), covered_seconds=0.0))

    assert assembly.is_done
    assert assembly.transcript().text == ""
