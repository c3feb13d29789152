"""The resume log of a job: what is in it survives anything, and nothing else is believed."""

from __future__ import annotations

import errno
import os

import pytest

from whisperd.core.transcript import Segment, Word
from whisperd.engine.api import DecodedWindow
from whisperd.worker.resume_log import NAME, ResumeLog

MADE_FROM = {"sha256": "ab", "options": {"language": None}, "windows": [(0, 10)]}


def window(text="hello", language="en"):
    segment = Segment(0.5, 1.25, f" {text}", (50364, 1, 2), 0, 0.2, -0.3, 1.1, 0.01, (Word(0.5, 1.0, f" {text}", 0.9),))
    heard = ({"en": 0.75, "de": 0.2}, {"de": 0.99})
    return DecodedWindow(language, 0.75, (segment,), 2.0, 0.2, -0.3, 1.1, 0.01, attempts=2, heard=heard)


def entries(count):
    return [((number * 10, number * 10 + 10, None, "text"), window(f"wörld {number}")) for number in range(count)]


def test_what_was_added_is_found_again_equal(tmp_path):
    """Every field survives the round trip, words and non-ASCII text too."""
    with ResumeLog(tmp_path, MADE_FROM) as log:
        log.add(entries(3))
    with ResumeLog(tmp_path, MADE_FROM) as log:
        found = [log.find(key) for key, _ in entries(3)]

    assert found == [decoded for _, decoded in entries(3)]


def test_a_text_that_was_refused_is_not_taken_for_text(tmp_path):
    """A window in which another language was heard has no text in the main one, and may be decoded in it later."""
    refused = DecodedWindow("en", None, (), 2.0, heard=({"de": 0.99},), is_decoded=False)
    with ResumeLog(tmp_path, MADE_FROM) as log:
        log.add([((0, 10, "en", "screen"), refused)])
    with ResumeLog(tmp_path, MADE_FROM) as log:
        assert log.find((0, 10, "en", "screen")) == refused
        assert log.find((0, 10, "en", "text")) is None


def test_the_language_asked_for_is_part_of_the_key(tmp_path):
    """A window decoded again in another language is another result."""
    with ResumeLog(tmp_path, MADE_FROM) as log:
        log.add([((0, 10, None, "text"), window("a")), ((0, 10, "fr", "text"), window("b", "fr"))])

        assert log.find((0, 10, "fr", "text")).language == "fr"
        assert log.find((0, 10, "de", "text")) is None


def test_a_log_made_from_something_else_is_discarded(tmp_path):
    """Another recording, model or option: nothing of the old one is used."""
    with ResumeLog(tmp_path, MADE_FROM) as log:
        log.add(entries(2))
    with ResumeLog(tmp_path, {**MADE_FROM, "sha256": "cd"}) as log:
        assert len(log) == 0
        log.add(entries(1))
    with ResumeLog(tmp_path, {**MADE_FROM, "sha256": "cd"}) as log:
        assert len(log) == 1


def test_every_torn_end_is_cut_off(tmp_path):
    """At whatever byte a crash cut it, what is whole is kept, and what comes after it can be read."""
    with ResumeLog(tmp_path, MADE_FROM) as log:
        log.add(entries(3))
    whole = (tmp_path / NAME).read_bytes()
    lines = [len(b"".join(whole.splitlines(keepends=True)[:count])) for count in range(1, 5)]
    for length in range(len(whole)):
        (tmp_path / NAME).write_bytes(whole[:length])
        with ResumeLog(tmp_path, MADE_FROM) as log:
            kept = len(log)
            log.add([((990, 999, None, "text"), window("last"))])
        with ResumeLog(tmp_path, MADE_FROM) as log:
            assert kept == max(0, sum(end <= length for end in lines) - 1)
            assert len(log) == kept + 1


def test_a_flipped_bit_hides_what_stands_behind_it(tmp_path):
    """A damaged line is not believed, nor is anything after it: it is decoded again."""
    with ResumeLog(tmp_path, MADE_FROM) as log:
        log.add(entries(3))
    data = bytearray((tmp_path / NAME).read_bytes())
    second = data.index(b"\n", data.index(b"\n") + 1) + 30
    data[second] ^= 1
    (tmp_path / NAME).write_bytes(data)

    with ResumeLog(tmp_path, MADE_FROM) as log:
        assert len(log) == 1


def test_a_write_that_fails_leaves_no_half_line(tmp_path, monkeypatch):
    """The disk is full in the middle of a line: what follows later must still be readable."""
    with ResumeLog(tmp_path, MADE_FROM) as log:
        log.add(entries(1))
        real = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]) if len(data) > 7 else _full())
        with pytest.raises(OSError, match="No space"):
            log.add(entries(2)[1:])
        monkeypatch.undo()
        log.add([((500, 510, None, "text"), window("later"))])
    with ResumeLog(tmp_path, MADE_FROM) as log:
        assert log.find((500, 510, None, "text")) is not None


def _full():
    raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_begun_leaves_no_descriptor_open(tmp_path, monkeypatch):
    """On a full disk a job tries again and again: each try would cost the worker one of its descriptors."""

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError, match="No space left"):
            ResumeLog(tmp_path, MADE_FROM)

    assert len(os.listdir("/proc/self/fd")) == before
