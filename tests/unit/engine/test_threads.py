"""The threads of an engine: as many as there are cores that nobody else uses."""

import os

import pytest
import torch

from whisperd.engine import threads
from whisperd.engine.threads import AdaptiveThreads, CoreTimes, core_times, threads_for


@pytest.mark.parametrize(
    ("most", "own", "spare", "expected"),
    [
        pytest.param(2, 2.0, 0.0, 2, id="all for us"),
        pytest.param(2, 0.5, 1.5, 2, id="mostly idle"),
        pytest.param(2, 1.0, 0.0, 1, id="another program has a core"),
        pytest.param(2, 1.6, 0.1, 2, id="another program has a little"),
        pytest.param(2, 0.2, 0.0, 1, id="others have nearly all"),
        pytest.param(8, 1.0, 4.0, 5, id="three of eight are taken"),
        pytest.param(2, 2.0, 6.0, 2, id="no more than asked for"),
    ],
)
def test_the_cores_that_are_there(most, own, spare, expected):
    """What this process used and what nobody used, in one second."""
    assert threads_for(most, CoreTimes(10.0, 5.0, 7.0), CoreTimes(11.0, 5.0 + own, 7.0 + spare)) == expected


@pytest.fixture
def cores(monkeypatch):
    """Two cores, what they did, and the clock; the number of threads of torch is put back."""

    class Cores:
        now, own, spare, known = 100.0, 0.0, 0.0, True

        def pass_time(self, seconds, *, own, spare):
            self.now += seconds
            self.own += own * seconds
            self.spare += spare * seconds

        def times(self):
            return CoreTimes(self.now, self.own, self.spare) if self.known else None

    cores = Cores()
    monkeypatch.setattr(threads, "core_times", cores.times)
    monkeypatch.setattr(threads.time, "monotonic", lambda: cores.now)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield cores
    torch.set_num_threads(before)


def test_fewer_while_another_program_is_busy(cores):
    """And all again once it is gone, though the engine uses only one core by then."""
    adaptive = AdaptiveThreads(2)
    found = []
    for own, spare in ((2.0, 0.0), (1.2, 0.0), (1.0, 0.0), (1.0, 1.0), (2.0, 0.0)):
        cores.pass_time(1.0, own=own, spare=spare)
        adaptive.adapt()
        found.append((adaptive.count, torch.get_num_threads()))

    assert found == [(2, 2), (1, 1), (1, 1), (2, 2), (2, 2)]


def test_not_looked_at_in_each_step(cores):
    """Half a second of the kernel's counts says something, a step of 20 ms does not."""
    adaptive = AdaptiveThreads(2)
    cores.pass_time(0.02, own=0.0, spare=0.0)
    adaptive.adapt()
    early = adaptive.count
    cores.pass_time(threads.INTERVAL_SECONDS, own=1.0, spare=0.0)
    adaptive.adapt()

    assert (early, adaptive.count) == (2, 1)


@pytest.mark.parametrize("when", ["from the start", "later"])
def test_a_kernel_that_does_not_tell(cores, when):
    """The number stays what it is."""
    cores.known = when == "later"
    adaptive = AdaptiveThreads(2)
    cores.known = False
    for _ in range(2):
        cores.pass_time(1.0, own=0.0, spare=0.0)
        adaptive.adapt()

    assert (adaptive.count, torch.get_num_threads()) == (2, 2)


STAT = """cpu  900 900 900 900 900 0 0 0 0 0
cpu0 100 20 30 400 7 0 0 50 0 0
cpu1 100 20 30 500 8 0 0 50 0 0
cpu2 900 900 900 900 900 0 0 0 0 0
intr 12345
"""


@pytest.mark.parametrize(
    ("priority", "expected"), [pytest.param(0, 955, id="usual"), pytest.param(10, 915, id="niced itself")]
)
def test_spare_time_of_the_cores_of_this_process(tmp_path, monkeypatch, priority, expected):
    """Idle, waiting for a disk, and for a process that is not niced what niced ones use; other cores do not count."""
    stat = tmp_path / "stat"
    stat.write_text(STAT)
    monkeypatch.setattr(threads, "_STAT", stat)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "getpriority", lambda *_: priority)

    assert core_times().spare == pytest.approx(expected / os.sysconf("SC_CLK_TCK"))


@pytest.mark.parametrize("text", [None, "", "cpu0\n", "cpu0 a b c d e\n"], ids=["missing", "empty", "short", "odd"])
def test_no_figures(tmp_path, monkeypatch, text):
    """As in a container that hides them."""
    stat = tmp_path / "stat"
    if text is not None:
        stat.write_text(text)
    monkeypatch.setattr(threads, "_STAT", stat)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})

    assert core_times() is None


def test_the_figures_of_this_machine():
    """Its cores have been idle at some time, and have worked for this process."""
    found = core_times()

    assert found.own > 0.0
    assert found.spare > 0.0
