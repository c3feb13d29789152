"""The loop over parts: who gets a tick, when it turns again, and what a broken listener does to the others."""

import os

import pytest

from whisperd.core import events
from whisperd.daemon import loop
from whisperd.daemon.loop import AT_ONCE, NEVER, Guarded, Loop, Part


class Counter(Part):
    """Counts its ticks; `due` is what it answers."""

    def __init__(self, due=NEVER, act=lambda: None):
        self.ticks = self.closed = 0
        self.due, self.act = due, act
        self.readable = []

    def tick(self, now):
        self.ticks += 1
        self.act()
        return now + self.due if self.due not in {AT_ONCE, NEVER} else self.due

    def waitables(self):
        return self.readable

    def close(self):
        self.closed += 1


class Broken(Part):
    """A listener with a defect."""

    def tick(self, *_):
        raise KeyError

    waitables = configure = close = tick


@pytest.fixture
def waits(monkeypatch):
    """How long the loop would have waited, and for what."""
    found = []
    monkeypatch.setattr(loop, "wait", lambda things, timeout: found.append((list(things), timeout)))
    return found


def turns(number):
    """Say that it is over after so many turns."""
    left = iter([False] * (number - 1))
    return lambda: next(left, True)


def test_the_loop_waits_for_the_part_that_is_due_first(waits):
    """Or for whatever becomes readable."""
    first, second = Counter(5.0), Counter(2.0)
    second.readable = [3]
    Loop([first, second], events.Emitter()).run(turns(3))

    assert (first.ticks, second.ticks) == (3, 3)
    assert [things for things, _ in waits] == [[3], [3]]
    assert [timeout for _, timeout in waits] == pytest.approx([2.0, 2.0])


def test_a_part_that_has_more_to_do_makes_it_turn_at_once(waits):
    """Otherwise there is a breath between two turns, however early a part wants its next."""
    part = Counter(AT_ONCE)
    driver = Loop([part], events.Emitter())
    driver.run(turns(2))
    part.due = -1.0
    driver.run(turns(2))

    assert [timeout for _, timeout in waits] == [0.0, loop.BREATH_SECONDS]


def test_a_retired_part_gets_no_more_ticks_but_is_closed(waits):
    """Even when another part retires it in the same turn."""
    last = Counter(1.0)
    first = Counter(act=lambda: driver.retire([last]))
    driver = Loop([first, last], events.Emitter())
    driver.run(turns(2))
    driver.close()

    assert (first.ticks, last.ticks, last.closed) == (2, 0, 1)
    assert waits == [([], loop.LONGEST_SECONDS)]


def test_each_step_is_measured(waits):
    """For the metrics, and for a line in the log when one stands still."""
    told = []
    emitter = events.Emitter()
    emitter.subscribe(told.append)
    Loop([Counter(), Counter(), Counter()], emitter).run(turns(1))

    assert [len(event.step_seconds) for event in told] == [3]


def test_a_broken_listener_ends_nothing(waits, caplog):
    """It is logged once, with its traceback, and left alone for a minute."""
    other = Counter()
    driver = Loop([Guarded(Broken()), other], events.Emitter())
    driver.configure(None)
    driver.run(turns(3))
    driver.close()

    assert (other.ticks, other.closed) == (3, 1)
    assert waits[0][1] == pytest.approx(loop.BROKEN_SECONDS)
    (record,) = caplog.records
    assert "Broken failed: KeyError" in record.message


def test_it_wakes_when_something_is_readable():
    """With the real wait: a pipe of a part."""
    read, write = os.pipe()
    part = Counter(60.0)
    part.readable = [read]
    os.write(write, b"x")
    Loop([part], events.Emitter()).run(turns(2))
    os.close(read)
    os.close(write)

    assert part.ticks == 2
