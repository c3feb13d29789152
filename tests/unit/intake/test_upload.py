"""Uploads: one state machine per file, with a clock that the test owns."""

import dataclasses

import pytest

from whisperd.core.job import Signature
from whisperd.intake.upload import Uploads

SMALL = Signature(1, 2, 100, 5, 5, 8)


@pytest.fixture
def uploads():
    return Uploads(quiet_seconds=5.0)


def due(uploads, now, limit=1000):
    return list(uploads.due(now, limit))


def test_a_file_is_due_when_its_quiet_time_is_over(uploads):
    """Not a moment earlier, and once."""
    uploads.observe("a", SMALL, 0.0)

    assert due(uploads, 4.9) == []
    assert due(uploads, 5.0) == ["a"]
    assert due(uploads, 5.0) == []


@pytest.mark.parametrize("field", ["size", "mtime_ns", "ctime_ns", "inode", "blocks", "device"])
def test_any_change_starts_the_quiet_time_again(uploads, field):
    """SMB reserves the size first and sets mtime back last: every part of the signature counts."""
    changed = dataclasses.replace(SMALL, **{field: 77})
    uploads.observe("a", SMALL, 0.0)
    uploads.observe("a", changed, 3.0)

    assert due(uploads, 5.0) == []
    assert due(uploads, 8.0) == ["a"]
    assert uploads.get("a").quiet_since == 3.0


def test_a_look_that_finds_it_unchanged_costs_no_time(uploads):
    """Else a scan every few seconds would keep a file waiting for ever."""
    uploads.observe("a", SMALL, 0.0)
    uploads.observe("a", SMALL, 4.0)

    assert due(uploads, 5.0) == ["a"]


def test_an_event_starts_the_quiet_time_again(uploads):
    """A write that leaves no trace in stat still leaves an event."""
    uploads.observe("a", SMALL, 0.0)
    uploads.touch("a", 4.0)

    assert due(uploads, 5.0) == []
    assert due(uploads, 9.0) == ["a"]


def test_a_postponed_file_is_due_again_at_that_time(uploads):
    """Who looked and found it open says when to look again, and why."""
    uploads.observe("a", SMALL, 0.0)
    due(uploads, 5.0)
    uploads.postpone("a", 12.0, "still open for writing")

    assert uploads.get("a").reason == "still open for writing"
    assert due(uploads, 11.9) == []
    assert due(uploads, 12.0) == ["a"]


def test_an_event_brings_a_postponed_file_forward(uploads):
    """The close of a file that is looked at every 30 s is followed at once."""
    uploads.observe("a", SMALL, 0.0)
    due(uploads, 5.0)
    uploads.postpone("a", 35.0, "still open for writing")
    uploads.touch("a", 6.0)

    assert uploads.get("a").reason == ""
    assert due(uploads, 11.0) == ["a"]
    assert due(uploads, 35.0) == []


def test_a_forgotten_file_is_never_due(uploads):
    """What is gone or taken is not looked at again."""
    uploads.observe("a", SMALL, 0.0)
    uploads.forget("a")

    assert due(uploads, 100.0) == []
    assert len(uploads) == 0


def test_a_file_that_comes_back_under_its_name_is_due_once(uploads):
    """The entry of the first must not bring the second forward."""
    uploads.observe("a", SMALL, 0.0)
    uploads.forget("a")
    uploads.observe("a", SMALL, 3.0)

    assert due(uploads, 5.0) == []
    assert due(uploads, 8.0) == ["a"]
    assert due(uploads, 100.0) == []


def test_files_found_together_come_in_the_order_they_were_made(uploads):
    """A scan meets them in no order at all."""
    for name, made in (("c", 3), ("a", 1), ("b", 2)):
        uploads.observe(name, dataclasses.replace(SMALL, ctime_ns=made), 0.0)

    assert due(uploads, 5.0, limit=2) == ["a", "b"]
    assert due(uploads, 5.0) == ["c"]
