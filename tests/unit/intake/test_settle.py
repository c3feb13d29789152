"""Settle: one state machine per file, with a clock that the test owns."""

import dataclasses

import pytest

from whisperd.core.job import Signature
from whisperd.intake.settle import Settle

SMALL = Signature(1, 2, 100, 5, 5, 8)


@pytest.fixture
def settle():
    return Settle(quiet_seconds=5.0)


def due(settle, now, limit=1000):
    return list(settle.due(now, limit))


def test_a_file_is_due_when_its_quiet_time_is_over(settle):
    """Not a moment earlier, and once."""
    settle.observe("a", SMALL, 0.0)

    assert due(settle, 4.9) == []
    assert due(settle, 5.0) == ["a"]
    assert due(settle, 5.0) == []


@pytest.mark.parametrize("field", ["size", "mtime_ns", "ctime_ns", "inode", "blocks", "device"])
def test_any_change_starts_the_quiet_time_again(settle, field):
    """SMB reserves the size first and sets mtime back last: every part of the signature counts."""
    changed = dataclasses.replace(SMALL, **{field: 77})
    settle.observe("a", SMALL, 0.0)
    settle.observe("a", changed, 3.0)

    assert due(settle, 5.0) == []
    assert due(settle, 8.0) == ["a"]
    assert settle.get("a").quiet_since == 3.0


def test_a_look_that_finds_it_unchanged_costs_no_time(settle):
    """Else a scan every few seconds would keep a file waiting for ever."""
    settle.observe("a", SMALL, 0.0)
    settle.observe("a", SMALL, 4.0)

    assert due(settle, 5.0) == ["a"]


def test_an_event_starts_the_quiet_time_again(settle):
    """A write that leaves no trace in stat still leaves an event."""
    settle.observe("a", SMALL, 0.0)
    settle.touch("a", 4.0)

    assert due(settle, 5.0) == []
    assert due(settle, 9.0) == ["a"]


def test_a_postponed_file_is_due_again_at_that_time(settle):
    """Who looked and found it open says when to look again, and why."""
    settle.observe("a", SMALL, 0.0)
    due(settle, 5.0)
    settle.postpone("a", 12.0, "still open for writing")

    assert settle.get("a").reason == "still open for writing"
    assert due(settle, 11.9) == []
    assert due(settle, 12.0) == ["a"]


def test_an_event_brings_a_postponed_file_forward(settle):
    """The close of a file that is looked at every 30 s is followed at once."""
    settle.observe("a", SMALL, 0.0)
    due(settle, 5.0)
    settle.postpone("a", 35.0, "still open for writing")
    settle.touch("a", 6.0)

    assert settle.get("a").reason == ""
    assert due(settle, 11.0) == ["a"]
    assert due(settle, 35.0) == []


def test_a_forgotten_file_is_never_due(settle):
    """What is gone or taken is not looked at again."""
    settle.observe("a", SMALL, 0.0)
    settle.forget("a")

    assert due(settle, 100.0) == []
    assert len(settle) == 0


def test_a_file_that_comes_back_under_its_name_is_due_once(settle):
    """The entry of the first must not bring the second forward."""
    settle.observe("a", SMALL, 0.0)
    settle.forget("a")
    settle.observe("a", SMALL, 3.0)

    assert due(settle, 5.0) == []
    assert due(settle, 8.0) == ["a"]
    assert due(settle, 100.0) == []


def test_files_found_together_come_in_the_order_they_were_made(settle):
    """A scan meets them in no order at all."""
    for name, made in (("c", 3), ("a", 1), ("b", 2)):
        settle.observe(name, dataclasses.replace(SMALL, ctime_ns=made), 0.0)

    assert due(settle, 5.0, limit=2) == ["a", "b"]
    assert due(settle, 5.0) == ["c"]
