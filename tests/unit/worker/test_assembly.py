"""Assembling a transcript: order, language vote, undecoded ends, progress, speakers, whole recordings."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from support.options import options

from whisperd.core.transcript import Segment, Turn, Word
from whisperd.engine.api import SAMPLE_RATE, DecodedWindow
from whisperd.worker.assembly import VOTERS, Assembly
from whisperd.worker.gaps import GapSearch


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


def test_people_of_one_recording_are_named_by_their_turns():
    """Also in the text so far, which has no words."""
    turns = [[Turn(0.0, 11.0, 0), Turn(11.0, 40.0, 1)]]
    assembly = Assembly(seconds((1, 11), (12, 22), (30, 40)), 50 * SAMPLE_RATE, "en", (), turns)
    run(assembly, lambda _: decoded())

    assert [segment.speaker for segment in assembly.transcript().segments] == ["Speaker 1", "Speaker 2", "Speaker 2"]
    assert [segment.speaker for segment in assembly.final()] == ["Speaker 1", "Speaker 2", "Speaker 2"]
    assert assembly.final()[0].words is None


def test_people_of_several_channels_are_named_by_channel_and_turn():
    """Two people on the left, one on the right."""
    ten = 10 * SAMPLE_RATE
    turns = [[Turn(0.0, 4.0, 0), Turn(4.0, 10.0, 1)], [Turn(0.0, 10.0, 0)]]
    windows = [(0, 4 * SAMPLE_RATE), (5 * SAMPLE_RATE, ten), (ten, 2 * ten)]
    assembly = Assembly(windows, 2 * ten, "en", ("L", "R"), turns)
    run(assembly, lambda _: decoded())

    assert {segment.speaker for segment in assembly.transcript().segments} == {"L (1)", "L (2)", "R"}


# Several languages: the engine of these tests hears in each part the language that is spoken in most of it.


class Speech:
    """A recording in which the language changes at given seconds, and what an engine makes of its pieces."""

    def __init__(self, total, *changes, part=5):
        self.total, self.changes = total, changes
        self.windows = seconds(*((at, min(at + 20, total)) for at in range(0, total, 20)))
        self.parts = [
            tuple(seconds(*((at, at + part) for at in range(start // SAMPLE_RATE, end // SAMPLE_RATE, part))))
            for start, end in self.windows
        ]

    def spoken(self, start, end):
        """The share of each language between two samples."""
        lengths = {}
        ends = [*(at for at, _ in self.changes[1:]), self.total]
        for (since, language), until in zip(self.changes, ends, strict=True):
            overlap = min(end, until * SAMPLE_RATE) - max(start, since * SAMPLE_RATE)
            if overlap > 0:
                lengths[language] = lengths.get(language, 0) + overlap
        return {language: length / (end - start) for language, length in lengths.items()}

    def answer(self, piece):
        whole = self.spoken(piece.start, piece.end)
        heard = tuple(self.spoken(piece.start + start, piece.start + end) for start, end in piece.listen)
        length = (piece.end - piece.start) / SAMPLE_RATE
        if piece.kind == "look":
            return DecodedWindow("", None, (), length, heard=(whole,), is_decoded=False)
        if piece.accepts and not piece.accepts(heard):
            return DecodedWindow(piece.language, None, (), length, heard=heard, is_decoded=False)
        language = piece.language or max(whole, key=whole.get)
        segment = Segment(0.0, length, f" {language}")
        return DecodedWindow(language, whole.get(language), (segment,), length, heard=heard)

    def assembly(self):
        return Assembly(self.windows, self.total * SAMPLE_RATE, None, parts=self.parts)


def test_each_part_gets_its_own_language():
    """Where it changes within a window, the window is decoded in pieces, cut at the pause next to the change."""
    speech = Speech(160, (0, "en"), (50, "de"), (75, "en"))
    assembly = speech.assembly()
    pieces = run(assembly, speech.answer)
    transcript = assembly.transcript()

    assert assembly.language == "en"
    assert [round(segment.start) for segment in transcript.segments] == [0, 20, 40, 50, 60, 75, 80, 100, 120, 140]
    assert [segment.text.strip() for segment in transcript.segments] == [s.language for s in transcript.segments]
    assert transcript.languages() == ((0.0, 50.0, "en"), (50.0, 75.0, "de"), (75.0, 160.0, "en"))
    assert {piece.index for piece in pieces if piece.kind == "look"} == {2, 3}


def test_no_language_is_lost_where_it_changes_every_20_seconds():
    """Four languages, in windows that the changes do not fit."""
    order = ["en", "fr", "ja", "zh"] * 2
    speech = Speech(160, *((20 * number - (5 if number else 0), language) for number, language in enumerate(order)))
    assembly = speech.assembly()
    run(assembly, speech.answer)

    assert [language for *_, language in assembly.transcript().languages()] == order


def test_a_word_in_another_language_changes_nothing_and_costs_nothing():
    """One part of five seconds with one second of English: the text is that of a French recording."""
    speech = Speech(160, (0, "fr"), (51, "en"), (52, "fr"))
    assembly = speech.assembly()
    pieces = run(assembly, speech.answer)

    assert {segment.language for segment in assembly.transcript().segments} == {None}
    assert sorted(piece.index for piece in pieces) == list(range(8))


def test_a_recording_in_one_language_is_decoded_as_if_nobody_listened():
    """The same pieces in the same order, each once, and the same transcript."""
    speech = Speech(160, (0, "fr"))
    with_parts, without = speech.assembly(), Assembly(speech.windows, 160 * SAMPLE_RATE, None)
    pieces, plain = run(with_parts, speech.answer), run(without, speech.answer)

    assert [(piece.start, piece.end, piece.language) for piece in pieces] == [
        (piece.start, piece.end, piece.language) for piece in plain
    ]
    assert with_parts.transcript() == without.transcript()


@pytest.mark.parametrize("step", [1, 2, 5])
def test_several_languages_do_not_depend_on_the_order_of_the_results(step):
    """Many pieces are with the engine at once; a resumed job has some at once that took long before."""
    speech = Speech(200, (0, "en"), (50, "de"), (95, "fr"), (130, "en"))
    assembly, expected, taken = speech.assembly(), speech.assembly(), []
    run(expected, speech.answer)
    while not assembly.is_done:
        while (piece := assembly.next()) is not None:
            taken.append(piece)
        piece = taken.pop((7 * step) % len(taken))
        assembly.take(piece, speech.answer(piece))

    assert assembly.transcript() == expected.transcript()


def test_text_that_may_get_another_language_is_not_final():
    """What is shown of a recording while it is transcribed never changes."""
    speech = Speech(160, (0, "en"), (50, "de"), (75, "en"))
    assembly, shown = speech.assembly(), ()
    while (piece := assembly.next()) is not None:
        assembly.take(piece, speech.answer(piece))
        final = tuple(segment.text for segment in assembly.final())
        assert final[: len(shown)] == shown
        shown = final

    assert shown == tuple(segment.text for segment in assembly.transcript().segments)


def test_each_kind_of_piece_has_a_key_of_its_own():
    """In the resume log, what was refused in the main language is not the text in the main language."""
    speech = Speech(160, (0, "en"), (50, "de"), (75, "en"))
    keys = [piece.key for piece in run(speech.assembly(), speech.answer)]

    assert len(keys) == len(set(keys))


# Gaps: speech without text is decoded once more, by itself.


def with_gaps(answer, *windows, total=60, language="en", **changes):
    """Decode windows that are speech from end to end; returns the pieces that were decoded once more, and the transcript."""
    own = seconds(*windows)
    gaps = GapSearch([(window,) for window in own], options(**changes))
    assembly = Assembly(own, total * SAMPLE_RATE, language, gaps=gaps)
    pieces = run(assembly, answer)
    again = [(piece.start / SAMPLE_RATE, piece.end / SAMPLE_RATE) for piece in pieces if piece.kind == "gap"]
    return again, assembly.transcript()


def test_a_gap_does_not_hold_up_progress():
    """It is decoded once more at once: a recording of noise would show no progress until its end."""
    own = seconds((0, 10), (12, 22), (24, 34))
    assembly = Assembly(own, 40 * SAMPLE_RATE, "en", gaps=GapSearch([(window,) for window in own], options()))

    kinds = []
    while (piece := assembly.next()) is not None:
        assembly.take(piece, decoded(silent=True))
        kinds.append((piece.kind, assembly.finished_windows))

    assert kinds == [("text", 0), ("gap", 1), ("text", 1), ("gap", 2), ("text", 2), ("gap", 3)]


def test_text_where_somebody_speaks_is_no_gap():
    """Nothing is decoded once more; a second without text is no gap, since times are not exact."""
    again, transcript = with_gaps(lambda _: decoded(start=0.5, end=9.0), (0, 10), (12, 22))

    assert again == []
    assert (transcript.quality["gaps"], transcript.quality["gap_share"]) == ([], 0.0)


def test_speech_without_text_is_decoded_once_more_and_its_text_taken():
    """By itself, up to the text before it, and with some of the pause behind it."""
    answer = {"text": lambda: decoded("a", end=4.0, start=0.0), "gap": lambda: decoded("b", start=0.0, end=6.5)}
    again, transcript = with_gaps(lambda piece: answer[piece.kind](), (0, 10))

    assert again == [(4.0, 10.5)]
    assert transcript.text == " a b"
    assert [segment.start for segment in transcript.segments] == [0.0, 4.0]
    assert transcript.quality["gaps"] == []
    assert transcript.quality["filled_gaps"] == 1


def test_text_that_fills_a_gap_in_the_middle_stands_in_the_middle():
    """Whatever was decoded first."""

    def answer(piece):
        if piece.kind == "gap":
            return decoded("b", start=0.0, end=4.0)
        segments = (Segment(0.0, 3.0, " a"), Segment(7.0, 10.0, " c"))
        return dataclasses.replace(decoded(), segments=segments)

    again, transcript = with_gaps(answer, (0, 10))

    assert again == [(3.0, 7.0)]
    assert transcript.text == " a b c"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"silent": True, "segments": ()}, "silence"),
        ({"looped": True}, "loop"),
        ({"avg_logprob": -1.5}, "doubtful"),
        ({"compression_ratio": 3.0}, "doubtful"),
        ({"segments": ()}, "no_text"),
    ],
)
def test_what_stays_without_text_that_can_be_trusted_is_named(wrong, why):
    """Once more is enough: the second time it is a gap; a text that is doubtful is kept."""
    bad = dataclasses.replace(decoded(end=10.0, start=0.0), **wrong)
    good = decoded(end=10.0, start=0.0)
    again, transcript = with_gaps(
        lambda piece: good if piece.index else bad,
        (2, 12),
        (12, 22),
        logprob_threshold=-1.0,
        compression_ratio_threshold=2.4,
    )

    assert again == [(1.5, 12.0)]
    assert transcript.quality["gaps"] == [{"from": 2.0, "to": 12.0, "why": why}]
    assert transcript.quality["gap_share"] == 0.5
    assert len(transcript.segments) == len(bad.segments) + 1


def test_a_text_that_was_doubtful_is_replaced_by_a_better_one():
    """In the language that was heard in it where none is set."""
    asked = []

    def answer(piece):
        asked.append((piece.kind, piece.language))
        if piece.kind == "gap":
            return decoded("besser", "de", 0.9, start=0.0, end=10.0)
        return dataclasses.replace(decoded("worse", "en", 0.6, start=0.0, end=10.0), avg_logprob=-2.0)

    _, transcript = with_gaps(answer, (0, 10), language=None, logprob_threshold=-1.0)

    assert asked == [("text", None), ("gap", None)]
    assert transcript.text == " besser"
    assert transcript.quality["gaps"] == []


@pytest.mark.parametrize("wrong", [{"no_speech_prob": 0.9}, {"language_probability": 0.3}, {"segments": ()}])
def test_a_guess_does_not_fill_a_gap(wrong):
    """Sound that is no speech must not get text because it was decoded twice."""

    def answer(piece):
        if piece.kind == "gap":
            return dataclasses.replace(decoded("Thank you.", "nn", 0.9, start=0.0, end=10.0), **wrong)
        return decoded(silent=True)

    _, transcript = with_gaps(answer, (0, 10), language=None, no_speech_threshold=0.6)

    assert transcript.text == ""
    assert [gap["why"] for gap in transcript.quality["gaps"]] == ["silence"]


def test_gaps_of_speakers_are_at_their_times():
    """The second channel begins where the first does."""
    own = seconds((0, 10), (20, 30))
    gaps = GapSearch([(window,) for window in own], options())
    assembly = Assembly(own, 40 * SAMPLE_RATE, "en", ("Ann", "Bob"), gaps=gaps)
    run(assembly, lambda piece: decoded(silent=piece.index == 1, start=0.0, end=10.0))

    assert assembly.transcript().quality["gaps"] == [{"from": 0.0, "to": 10.0, "why": "silence"}]


def test_text_with_gaps_is_not_final_before_they_were_decoded_once_more():
    """What is shown of a recording while it is transcribed never changes."""
    own = seconds((0, 10), (10, 20))
    assembly = Assembly(own, 20 * SAMPLE_RATE, "en", gaps=GapSearch([(window,) for window in own], options()))
    first, second = assembly.next(), assembly.next()
    assembly.take(first, decoded("a", start=0.0, end=4.0))
    assert final(assembly) == []
    assembly.take(second, decoded("c", start=0.0, end=10.0))
    assembly.take(assembly.next(), decoded("b", start=0.0, end=6.0))

    assert final(assembly) == [" a", " b", " c"]
