"""Events as lines of the journal."""

import logging

import pytest
from support.spool import Spool, result

from whisperd.core import events
from whisperd.core.transcript import KnownVoices
from whisperd.listeners.logs import STALL_SECONDS, log_event
from whisperd.settings import config
from whisperd.settings.profiles import resolve


@pytest.mark.parametrize(("slowest", "lines"), [(0.04, 0), (STALL_SECONDS - 0.1, 0), (STALL_SECONDS + 7.0, 1)])
def test_only_a_step_in_which_nothing_moved_is_named(caplog, slowest, lines):
    """The loop turns several times a second."""
    with caplog.at_level(logging.DEBUG, "whisperd"):
        log_event(events.LoopTurned((0.001, slowest, 0.002)))

    assert [record.getMessage().startswith("the daemon was blocked for 12 s") for record in caplog.records] == [
        True
    ] * lines


@pytest.mark.parametrize(("share", "level"), [(0.1, logging.INFO), (0.25, logging.WARNING)])
def test_a_transcript_with_much_missing_is_warned_of(caplog, tmp_path, share, level):
    """Above `quality.max_gap_share`, which is 10 % by default."""
    spool = Spool(tmp_path / "spool")
    job = spool.store.start(spool.take("a.wav"))
    job = job.evolve(spec=resolve(config.validate({}, source="test"), "a.wav"))
    with caplog.at_level(logging.INFO, "whisperd"):
        log_event(events.JobFinished(job, result(quality={"gap_share": share, "gaps": []})))

    (record,) = caplog.records
    assert record.levelno == level
    assert ("25% of its speech has no text" in record.getMessage()) == (level == logging.WARNING)


def test_a_voice_sample_that_cannot_be_used_is_named(caplog, tmp_path):
    """Whoever put it there learns why nobody is called so."""
    job = Spool(tmp_path / "spool").take("a.wav")
    voices = KnownVoices({}, ("inbox/_voices/Ben.wav: the file is empty",))
    with caplog.at_level(logging.INFO, "whisperd"):
        log_event(events.JobFinished(job, result(voices=voices)))

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "inbox/_voices/Ben.wav: the file is empty" in record.getMessage()
