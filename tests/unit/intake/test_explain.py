"""Explanations of files that wait in the inbox: when each is written, renewed and removed."""

import os

import pytest
from support.spool import Spool

from whisperd.intake.explain import REWRITE_SECONDS, Explanations
from whisperd.intake.upload import Upload


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def test_the_note_on_a_file_that_waits_for_weeks_is_written_anew_every_day(spool):
    """Or systemd-tmpfiles would take it for an old one."""
    spool.upload("a.wav")
    upload = Upload("a.wav", None, 0.0, 0.0)
    waiting = Explanations(spool.store.status_files, lambda upload, now: (7, "still open for writing"))
    waiting.watch(upload, 0.0)
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
    upload = Upload("a.wav", None, 0.0, 0.0)
    waiting = Explanations(spool.store.status_files, lambda upload, now: None)
    waiting.watch(upload, 0.0)
    assert spool.sidecar("a-2.wav")["status"] == "pending"

    waiting.over(upload)
    with pytest.raises(FileNotFoundError):
        spool.sidecar("a-2.wav")
