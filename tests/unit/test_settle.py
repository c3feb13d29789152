"""Settle: one state machine per file, with a clock that the test owns."""

import dataclasses

import pytest

from whisperd.intake.settle import Settle
from whisperd.job import Signature

SMALL = Signature(1, 2, 100, 5, 5, 8)


@pytest.fixture
def settle():
    return Settle(quiet_seconds=5.0, empty_seconds=60.0)


def due(settle, now):
    return list(settle.due(now))


def test_a_file_is_due_when_its_quiet_time_is_over(settle):
    """Not a moment earlier."""
    settle.observe("a", SMALL, 0.0)

    assert due(settle, 4.9) == []
    assert due(settle, 5.0) == ["a"]
    assert settle.confirm("a", SMALL, 5.0)


@pytest.mark.parametrize("field", ["size", "mtime_ns", "ctime_ns", "inode", "blocks", "device"])
def test_any_change_starts_the_quiet_time_again(settle, field):
    """SMB reserves the size first and sets mtime back last: every part of the signature counts."""
    changed = dataclasses.replace(SMALL, **{field: 77})
    settle.observe("a", SMALL, 0.0)
    settle.observe("a", changed, 3.0)

    assert due(settle, 5.0) == []
    assert due(settle, 8.0) == ["a"]


def test_an_event_starts_the_quiet_time_again(settle):
    """A write that leaves no trace in stat still leaves an event."""
    settle.observe("a", SMALL, 0.0)
    settle.touch("a", 4.0)

    assert due(settle, 5.0) == []
    assert due(settle, 9.0) == ["a"]


def test_a_file_that_changed_at_the_last_look_is_not_confirmed(settle):
    """Between being due and being taken the file is looked at once more."""
    settle.observe("a", SMALL, 0.0)
    assert due(settle, 5.0) == ["a"]
    changed = dataclasses.replace(SMALL, size=101)

    assert not settle.confirm("a", changed, 5.0)
    assert due(settle, 9.9) == []
    assert due(settle, 10.0) == ["a"]
    assert settle.confirm("a", changed, 10.0)


def test_an_empty_file_waits_longer(settle):
    """Browsers and Finder make an empty placeholder long before the data comes."""
    empty = dataclasses.replace(SMALL, size=0)
    settle.observe("a", empty, 0.0)

    assert due(settle, 59.0) == []
    assert due(settle, 60.0) == ["a"]


def test_a_forgotten_file_is_never_due(settle):
    """What is gone or taken is not looked at again."""
    settle.observe("a", SMALL, 0.0)
    settle.forget("a")

    assert due(settle, 100.0) == []
    assert len(settle) == 0


def test_due_ends_even_when_nobody_confirms(settle):
    """A file that is due but not taken must not be handed out for ever in one call."""
    settle.observe("a", SMALL, 0.0)

    assert due(settle, 5.0) == ["a"]
    assert due(settle, 5.0) == []


def test_a_file_touched_after_it_settled_is_due_again(settle):
    """It may wait for room in the queue for hours, and be written to meanwhile."""
    settle.observe("a", SMALL, 0.0)
    due(settle, 5.0)
    settle.touch("a", 50.0)

    assert due(settle, 54.0) == []
    assert due(settle, 55.0) == ["a"]
