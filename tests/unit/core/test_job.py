"""Values of a job: what a name looks like where it is shown, what an error is as a value, how far a job is."""

import dataclasses
import re

import pytest
from support.spool import result

from whisperd.core.errors import EngineError, InputError, SpoolFull
from whisperd.core.job import Failure, Progress, Signature, utc_now

SIGNATURE = Signature(1, 2, 3, 4, 5, 6)


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
