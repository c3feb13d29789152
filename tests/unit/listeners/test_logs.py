"""Events as lines of the journal."""

import logging

import pytest

from whisperd.core import events
from whisperd.listeners.logs import STALL_SECONDS, log_event


@pytest.mark.parametrize(("slowest", "lines"), [(0.04, 0), (STALL_SECONDS - 0.1, 0), (STALL_SECONDS + 7.0, 1)])
def test_only_a_step_in_which_nothing_moved_is_named(caplog, slowest, lines):
    """The loop turns several times a second."""
    with caplog.at_level(logging.DEBUG, "whisperd"):
        log_event(events.LoopTurned((0.001, slowest, 0.002)))

    assert [record.getMessage().startswith("the daemon was blocked for 12 s") for record in caplog.records] == [
        True
    ] * lines
