"""One recording on its way through a batch: order, language vote, rests, progress."""

from __future__ import annotations

import itertools

import pytest

from whisperd.core.transcript import Segment, Word
from whisperd.engine.api import SAMPLE_RATE, DecodedWindow
from whisperd.worker.recording import VOTERS, Recording


def decoded(text="hi", language="en", probability=None, covered=10.0, *, silent=False, start=0.5, end=2.0):
    words = (Word(start, end, f" {text}", 0.9),)
    segments = () if silent else (Segment(start, end, f" {text}", avg_logprob=-0.2, words=words),)
    return DecodedWindow(
        language, probability, segments, covered, 0.0, -0.2, 1.0, 0.1, silent=silent, attempts=1, looped=False
    )


def seconds(*pairs):
    return [(int(start * SAMPLE_RATE), int(end * SAMPLE_RATE)) for start, end in pairs]


def run(recording, answer):
    """Decode everything in the order in which it is handed out; returns the spans."""
    spans = []
    while (span := recording.next()) is not None:
        spans.append(span)
        recording.take(span, answer(span))
    assert recording.is_done
    return spans


def test_text_is_in_the_order_and_time_of_the_recording():
    """Whatever order the windows are finished in."""
    recording = Recording(seconds((1, 11), (12, 22), (30, 40)), 50 * SAMPLE_RATE, "en")
    spans = [recording.next() for _ in range(3)]
    for span in reversed(spans):
        recording.take(span, decoded(f"w{span.index}"))
    transcript = recording.transcript()

    assert transcript.text == " w0 w1 w2"
    assert [segment.start for segment in transcript.segments] == [1.5, 12.5, 30.5]
    assert transcript.segments[2].words[0].end == 32.0
    assert transcript.segments[1].seek == 1200


def test_no_time_lies_behind_the_end():
    """A model may place an end in the padding."""
    recording = Recording(seconds((0, 3)), 3 * SAMPLE_RATE, "en")
    run(recording, lambda _: decoded(end=9.0))

    assert recording.transcript().segments[0].end == 3.0


def test_the_language_is_voted_for_by_windows_from_everywhere():
    """A recording that begins in one language and goes on in another is not taken for the first."""
    windows = seconds(*((10 * number, 10 * number + 10) for number in range(20)))
    recording = Recording(windows, 200 * SAMPLE_RATE, None)
    spans = run(
        recording, lambda span: decoded(language=span.language or ("en" if span.index < 4 else "fr"), probability=0.9)
    )
    first = [span.index for span in spans[:VOTERS]]

    assert recording.language == "fr"
    assert first == [0, 4, 8, 12, 16]
    assert all(span.language is None for span in spans[:VOTERS])
    again = [span for span in spans[VOTERS:] if span.index in first]
    assert [(span.index, span.language) for span in again] == [(0, "fr")]
    assert recording.transcript().quality["language_votes"] == {"en": 9.0, "fr": 36.0}
    assert recording.transcript().language_probability == 0.8


def test_a_silent_voter_has_no_vote():
    """Silence sounds like English to the model."""
    recording = Recording(seconds((0, 10), (10, 20)), 20 * SAMPLE_RATE, None)
    run(recording, lambda span: decoded(language="en" if span.index == 0 else "de", silent=span.index == 0))

    assert recording.language == "de"


def test_nothing_but_silence_ends_too():
    """No vote at all is no reason to wait for ever."""
    recording = Recording(seconds((0, 10)), 10 * SAMPLE_RATE, None)
    run(recording, lambda _: decoded(silent=True))

    assert recording.transcript().text == ""


def test_no_windows_is_done_at_once():
    """VAD found nobody speaking."""
    recording = Recording([], 10 * SAMPLE_RATE, None)

    assert recording.next() is None
    assert recording.is_done
    assert recording.processed_seconds == 10.0
    assert recording.transcript().quality["dropped_seconds"] == 10.0


def test_what_a_window_left_undecoded_is_decoded_as_a_window_of_its_own():
    """The model stopped at 4 s of 10: the other 6 s must not be lost."""
    recording = Recording(seconds((0, 10)), 10 * SAMPLE_RATE, "en")
    spans = run(recording, lambda span: decoded("a", covered=4.0) if span.start == 0 else decoded("b", covered=6.0))

    assert [(span.start, span.end) for span in spans] == seconds((0, 10), (4, 10))
    assert recording.transcript().text == " a b"
    assert recording.transcript().segments[1].start == 4.5


def test_a_window_that_covers_nothing_is_not_decoded_for_ever():
    """No progress, no second look."""
    recording = Recording(seconds((0, 10)), 10 * SAMPLE_RATE, "en")

    assert len(run(recording, lambda _: decoded(covered=0.0))) == 1


def test_progress_counts_the_silence_before_a_window_with_it():
    """It never goes back, and at the end it is the whole length."""
    recording = Recording(seconds((5, 10), (20, 30)), 60 * SAMPLE_RATE, "en")
    first, second = recording.next(), recording.next()
    recording.take(first, decoded(covered=5.0))

    assert recording.processed_seconds == 10.0
    recording.take(second, decoded(covered=10.0))
    assert recording.processed_seconds == 60.0


@pytest.mark.parametrize("count", range(1, 12))
def test_every_window_is_decoded_exactly_once_where_all_agree(count):
    """The vote costs nothing then."""
    recording = Recording(seconds(*((number, number + 1) for number in range(count))), count * SAMPLE_RATE, None)
    spans = run(recording, lambda _: decoded(probability=0.9, covered=1.0))

    assert sorted(span.index for span in spans) == list(range(count))


def settled(recording):
    return [segment.text for segment in recording.settled()]


def test_what_is_settled_has_no_gap_before_it():
    """A window is settled once it and all before it are finished, what they left undecoded too."""
    recording = Recording(seconds((1, 11), (12, 22), (30, 40)), 50 * SAMPLE_RATE, "en")
    first, second, third = (recording.next() for _ in range(3))
    recording.take(third, decoded("c"))
    recording.take(first, decoded("a", covered=4.0))
    assert settled(recording) == []
    recording.take(recording.next(), decoded("b", covered=6.0))
    assert settled(recording) == [" a", " b"]
    recording.take(second, decoded(silent=True))

    assert settled(recording) == [" a", " b", " c"]
    assert [segment.start for segment in recording.settled()] == [1.5, 5.5, 30.5]


def test_nothing_is_settled_while_the_vote_is_on():
    """A window may be decoded again in another language; what is settled never changes."""
    recording = Recording(seconds((0, 10), (10, 20), (20, 30)), 30 * SAMPLE_RATE, None)
    for language in ("fr", "en", "en"):
        assert settled(recording) == []
        recording.take(recording.next(), decoded(language, language, 0.9))
    assert settled(recording) == []
    recording.take(recording.next(), decoded("again"))

    assert settled(recording) == [" again", " en", " en"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_what_is_settled_of_several_speakers_is_the_beginning_of_the_end(order):
    """Their words are put in order, so one who is not that far yet may come before another's."""
    windows = seconds((0, 10), (15, 25), (32, 42), (42, 52))
    recording = Recording(windows, 60 * SAMPLE_RATE, "en", ("A", "B"))
    spans = [recording.next() for _ in windows]
    seen = []
    for index in order:
        recording.take(spans[index], decoded(str(index), end=9.0))
        seen.append(settled(recording))

    assert seen[-1] == [segment.text for segment in recording.transcript().segments] == [" 0", " 2", " 3", " 1"]
    assert all(later[: len(earlier)] == earlier for earlier, later in itertools.pairwise(seen))
