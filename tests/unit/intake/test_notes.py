"""Explanations of files that wait in the inbox: when each is written, renewed and removed."""

import os

import pytest
from support.spool import Spool

from whisperd.intake.waiting import REWRITE_SECONDS, Waiting


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def test_the_note_on_a_file_that_waits_for_weeks_is_written_anew_every_day(spool):
    """Or systemd-tmpfiles would take it for an old one."""
    spool.upload("a.wav")
    waiting = Waiting(spool.store.status_files, lambda name, now: (7, "still open for writing"))
    waiting.watch("a.wav", 0.0)
    waiting.tick(10.0)
    path = spool.layout.outbox / "a.wav.status.json"
    os.utime(path, ns=(0, 0))
    waiting.tick(REWRITE_SECONDS)
    before = path.stat().st_mtime_ns
    waiting.tick(REWRITE_SECONDS + 20.0)

    assert before == 0
    assert path.stat().st_mtime_ns > 0


def test_a_note_that_an_earlier_daemon_left_goes_with_its_file(spool):
    """Even where this one had no reason to write it anew, and wherever it stands."""
    spool.finish(spool.take("a.wav"))
    spool.upload("a.wav")
    spool.store.status_files.explain("a.wav", 7, "empty")
    spool.restart()
    waiting = Waiting(spool.store.status_files, lambda name, now: None)
    waiting.watch("a.wav", 0.0)
    assert spool.sidecar("a-2.wav")["status"] == "pending"

    waiting.over("a.wav")
    with pytest.raises(FileNotFoundError):
        spool.sidecar("a-2.wav")
