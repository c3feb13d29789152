"""Values of a job: what a name looks like where it is shown, what an error is as a value, how far a job is."""

import dataclasses
import itertools
import re

import pytest
from support.spool import result

from whisperd.core.errors import EngineError, InputError, SpoolFull
from whisperd.core.job import Failure, Progress, Signature, printable, utc_now

SIGNATURE = Signature(1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        pytest.param("alice/interview.mp3", "alice/interview.mp3", id="plain"),
        pytest.param("Gespräch mit Ägir.mp3", "Gespräch mit Ägir.mp3", id="umlauts"),
        pytest.param("会议录音🎙.mp3", "会议录音🎙.mp3", id="wide_characters"),
        pytest.param("a\u00a0b\u3000c.mp3", "a\u00a0b\u3000c.mp3", id="no_break_and_wide_space"),
        pytest.param("AC\\DC.mp3", "AC\\\\DC.mp3", id="backslash"),
        pytest.param("a\nb.mp3", "a\\nb.mp3", id="newline"),
        pytest.param("a\r\tb.mp3", "a\\r\\tb.mp3", id="carriage_return_and_tab"),
        pytest.param("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m", id="terminal_escape"),
        pytest.param("\u009b31mred", "\\u009b31mred", id="terminal_escape_in_one_byte"),
        pytest.param("\u202egpj.mp3", "\\u202egpj.mp3", id="bidi_override"),
        pytest.param("a\u200bb\ufeff", "a\\u200bb\\ufeff", id="invisible"),
        pytest.param("a\u2028b", "a\\u2028b", id="line_separator"),
        pytest.param("a\udcff\udc80.mp3", "a\\xff\\x80.mp3", id="not_utf8"),
        pytest.param("\U000e0041", "\\U000e0041", id="tag_character"),
    ],
)
def test_a_name_is_shown_with_escapes_for_what_must_not_reach_a_terminal_or_a_log(name, shown):
    """One name is one line, cannot move the cursor and reads in the direction in which it is written."""
    assert printable(name) == shown


def test_no_two_names_are_shown_alike():
    """A backslash in a name is told from one that an escape brought."""
    alphabet = ["\\", "n", "\n", "x", "9", "b", "u", "0", "\udc9b", "\x9b", "\u202e"]
    every_name = ["".join(letters) for count in range(5) for letters in itertools.product(alphabet, repeat=count)]

    shown = {printable(name) for name in every_name}

    assert len(shown) == len(every_name)


def test_a_job_error_keeps_all_that_it_says():
    """Code, message, hint, whether to try again, and where it happened."""
    error = InputError("no sound track", hint="send another file", code="no_audio", stage="decoding")

    assert Failure.of(error) == Failure("no_audio", "no sound track", "send another file", False, "decoding")


def test_the_stage_of_a_job_error_wins_over_that_of_the_place_where_it_was_caught():
    """It knows better."""
    assert Failure.of(EngineError("x", stage="transcribing"), stage="decoding").stage == "transcribing"
    assert Failure.of(EngineError("x"), stage="decoding").stage == "decoding"


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (InputError("x", code="corrupt"), "corrupt", False),
        (InputError("x"), "input", False),
        (EngineError("x"), "engine", True),
        (SpoolFull("x"), "spool_full", True),
        (MemoryError(), "out_of_memory", True),
        (ZeroDivisionError("x"), "internal", True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_every_error_is_a_failure_with_a_code_and_a_message(error, code, retryable):
    """One that nobody foresaw is tried again: it may be the machine's fault."""
    failure = Failure.of(error)

    assert (failure.code, failure.retryable) == (code, retryable)
    assert failure.message


def test_an_unforeseen_error_keeps_the_name_of_its_type():
    """`'x'` alone would tell nobody that it is a KeyError."""
    assert Failure.of(KeyError("x")).message == "KeyError: 'x'"


@pytest.mark.parametrize(
    ("processed", "duration", "percent"),
    [(0.0, None, 0.0), (3.0, None, 0.0), (3.0, 0.0, 0.0), (1.0, 3.0, 33.3), (3.0, 3.0, 100.0), (3.1, 3.0, 100.0)],
)
def test_progress_is_audio_seconds_done_over_audio_seconds_in_all(processed, duration, percent):
    """Never more than 100, and 0 as long as the length is unknown."""
    assert Progress(processed_seconds=processed, duration_seconds=duration).percent == percent


@pytest.mark.parametrize("field", ["device", "inode", "size", "mtime_ns"])
def test_a_file_with_another_of_these_is_another_content(field):
    """What was claimed must be what had settled."""
    assert not SIGNATURE.same_content(dataclasses.replace(SIGNATURE, **{field: 99}))


@pytest.mark.parametrize("field", ["ctime_ns", "blocks"])
def test_what_a_rename_changes_is_no_change_of_content(field):
    """A rename sets ctime, and a filesystem may allocate late."""
    assert SIGNATURE.same_content(dataclasses.replace(SIGNATURE, **{field: 99}))


def test_times_are_utc_in_iso_8601_with_milliseconds():
    """A time some seconds ago sorts before now, as text."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", utc_now())
    assert utc_now(ago_seconds=60.0) < utc_now()


def test_the_speed_of_a_job_that_took_no_time_is_unknown():
    """It is not infinite, which JSON cannot say."""
    assert result(processing_seconds=0.0).speed is None
    assert result(duration_seconds=10.0, processing_seconds=4.0).speed == 2.5
