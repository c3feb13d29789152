"""The part of the loop that makes corrections, with a clock that the test owns and a process that ends when it says."""

import errno
import os
from pathlib import Path

import pytest
from support.options import INTAKE
from support.spool import Spool, result

from whisperd.core import events
from whisperd.core.job import Ticket
from whisperd.core.transcript import Segment, Transcript
from whisperd.daemon import correcting
from whisperd.daemon.correcting import EARLY_SECONDS, PAUSE_SECONDS, Correcting
from whisperd.intake.inbox import Inbox
from whisperd.settings import config
from whisperd.spool import corrections
from whisperd.worker import rerender

NAME = "a.mp3"
TICKET = "a.mp3.yaml"
TALK = Transcript(" Hello.", (Segment(0.0, 1.0, " Hello.", speaker="Left"),), "en")
ANNA = "speakers: {Left: Anna}\n"


class Unexplained:
    """Nobody reads the status files of waiting uploads here."""

    def explain(self, name, size_bytes, reason):
        return None

    def explanation_of(self, name):
        return None

    def stale_explanations(self):
        return iter(())


class Process:
    """Stands in for the process that renders; it renders at once, and has ended unless it hangs."""

    hangs = False
    status = 0

    def __init__(self, command, environment, data, deadline):
        self.deadline = deadline
        self.pidfd = -1
        if not self.hangs and not self.status:
            rerender.main(Path(command[-1]))

    def has_ended(self, now):
        return not self.hangs or now >= self.deadline

    def kill(self):
        self.hangs = False

    def reap(self):
        return (None if self.hangs else self.status), "Killed"


class Desk:
    """A spool with a completed job, an inbox, and the part."""

    def __init__(self, root, monkeypatch):
        monkeypatch.setattr(os, "fsync", lambda fd: None)
        monkeypatch.setattr(correcting, "Delivery", Process)
        self.spool = Spool(root)
        self.spool.complete(NAME, TALK)
        self.told = []
        self.emitter = events.Emitter()
        self.emitter.subscribe(self.told.append)
        self.inbox = Inbox(self.spool.layout.inbox, INTAKE, Unexplained(), self.emitter)
        self.inbox.start()
        self.now = 1000.0
        self.start()

    def start(self):
        """Begin with a new part, as a new daemon does."""
        self.part = Correcting(config.validate({}, source="test"), self.spool.store, self.inbox, self.emitter)
        self.part.restore()

    def write(self, text):
        """What a user does; the ticket has settled a second later."""
        (self.spool.layout.inbox / TICKET).write_text(text)
        self.pass_time(1.0)

    def pass_time(self, seconds, step=0.25):
        """Let the loop turn."""
        until = self.now + seconds
        while self.now < until:
            self.inbox.tick(self.now)
            self.part.tick(self.now)
            self.now += step

    @property
    def job_id(self):
        return self.spool.sidecar(NAME)["id"]

    @property
    def text(self):
        return (self.spool.layout.outbox / "a.txt").read_text()

    @property
    def verdict(self):
        return self.inbox.tickets.verdict(TICKET)

    def left(self):
        return [entry for entry in os.listdir(self.spool.layout.work) if entry.startswith(corrections.PREFIX)]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    desk = Desk(tmp_path / "spool", monkeypatch)
    yield desk
    desk.inbox.stop()


def test_a_ticket_is_followed_and_forgotten(desk):
    """One event tells of it, and the part is idle before and after."""
    assert desk.part.is_idle
    desk.write(ANNA)
    desk.pass_time(1.0)

    assert (desk.text, desk.left()) == ("Anna: Hello.\n", [])
    assert [event for event in desk.told if isinstance(event, events.CorrectionMade)] == [
        events.CorrectionMade(NAME, TICKET, (), desk.job_id)
    ]
    assert (desk.spool.layout.done / TICKET).read_text() == ANNA
    assert TICKET not in desk.inbox.tickets
    assert desk.part.is_idle


def test_what_is_wrong_is_told_once(desk):
    """A correction that is refused is not tried again until it changes."""
    desk.write("speakers: {Nobody: Anna}\n")
    desk.pass_time(100.0, step=5.0)

    denied = [event for event in desk.told if isinstance(event, events.CorrectionDenied)]
    assert [event.ticket for event in denied] == [TICKET]
    assert "this correction is not made: nobody is called Nobody in this transcript" in desk.verdict
    assert desk.part.is_idle


def test_one_that_comes_before_its_job_has_completed_is_tried_again(desk):
    """At once when a job completes, and now and then: its status file may come back in other ways."""
    status = desk.spool.layout.outbox / "a.mp3.status.json"
    status.rename(desk.spool.layout.root / "away")
    desk.write(ANNA)
    assert "no completed job is called a.mp3" in desk.verdict
    assert desk.part.is_idle  # `run --once` does not wait for it

    (desk.spool.layout.root / "away").rename(status)
    desk.emitter.emit(events.JobFinished(desk.spool.take("b.mp3"), result()))
    assert not desk.part.is_idle
    desk.pass_time(1.0)
    assert desk.text == "Anna: Hello.\n"

    status.rename(desk.spool.layout.root / "away")
    desk.write("speakers: {Anna: Ann}\n")
    (desk.spool.layout.root / "away").rename(status)
    desk.pass_time(EARLY_SECONDS + 1.0)
    assert desk.text == "Ann: Hello.\n"


def test_a_process_that_hangs_or_breaks_is_ended_and_the_ticket_says_so(desk, monkeypatch, caplog):
    """Nothing has changed, and the next correction is made."""
    monkeypatch.setattr(Process, "hangs", True)
    desk.write(ANNA)
    assert desk.part.waitables() == [-1]
    desk.pass_time(correcting.RENDER_SECONDS + 5.0, step=1.0)
    assert "it could not be rendered" in desk.verdict
    assert "a.mp3.yaml: the process that renders took too long: Killed" in caplog.text

    monkeypatch.setattr(Process, "hangs", False)
    monkeypatch.setattr(Process, "status", 1)
    desk.write(f"{ANNA}# again\n")
    desk.pass_time(1.0)
    assert "the process that renders ended with status 1" in caplog.text
    assert (desk.text, desk.left()) == ("Left: Hello.\n", [])

    monkeypatch.setattr(Process, "status", 0)
    desk.write(f"{ANNA}# and again\n")
    desk.pass_time(1.0)
    assert desk.text == "Anna: Hello.\n"


@pytest.mark.parametrize("step", ["begin", "plan", "carry_out"])
def test_a_full_disk_delays_a_correction(desk, monkeypatch, step):
    """It is made when there is room again; no job and no other part is held up."""
    real = getattr(corrections.Corrections, step)

    def full(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full_later(*arguments):
        yield from ()
        full()

    monkeypatch.setattr(corrections.Corrections, step, full_later if step == "carry_out" else full)
    desk.write(ANNA)
    desk.pass_time(2 * PAUSE_SECONDS)
    assert desk.text == "Left: Hello.\n"
    assert not desk.part.is_idle

    monkeypatch.setattr(corrections.Corrections, step, real)
    desk.pass_time(2 * PAUSE_SECONDS)
    assert (desk.text, desk.left()) == ("Anna: Hello.\n", [])
    assert desk.part.is_idle


def test_a_daemon_that_stops_leaves_the_ticket_to_the_next(desk, monkeypatch):
    """What was being rendered is forgotten, and rendered by the next one."""
    monkeypatch.setattr(Process, "hangs", True)
    desk.write(ANNA)
    desk.part.close()
    assert len(desk.left()) == 1

    monkeypatch.setattr(Process, "hangs", False)
    desk.inbox.stop()
    desk.inbox = Inbox(desk.spool.layout.inbox, INTAKE, Unexplained(), desk.emitter)
    desk.inbox.start()
    desk.start()
    desk.pass_time(3.0)
    assert (desk.text, desk.left()) == ("Anna: Hello.\n", [])


@pytest.mark.parametrize(
    ("name", "values", "place"),
    [
        ("b/a.mp3.yaml", {}, "b/a.mp3"),
        ("b/a.mp3.correction.yaml", {}, "b/a.mp3"),
        ("a.mp3.Correction (1).YML", {}, "a.mp3"),
        ("b/a _b_.mp3.correction.yaml", {"recording": 'a "b".mp3'}, 'b/a "b".mp3'),
    ],
)
def test_a_correction_is_for_a_recording_of_its_own_folder(name, values, place):
    """By what it says, since browsers change names; else by its own name."""
    assert correcting.place_of(Ticket(name, values=values)) == place
