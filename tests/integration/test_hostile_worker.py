"""Workers in the hands of somebody else, as real processes on the real pipe: the supervisor ends each and goes on."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from multiprocessing.connection import wait

import pytest
from support.daemon import tone

from whisperd.core import events
from whisperd.core.job import Failure, Phase, Result
from whisperd.daemon import pool as pools
from whisperd.daemon.pool import Pool
from whisperd.protocol import (
    FROM_WORKER,
    TEXT_MAX,
    BootFailed,
    Failed,
    Finished,
    Heartbeat,
    Ready,
    Released,
    Work,
    frame,
)
from whisperd.settings import config
from whisperd.settings.profiles import resolve

SOON = 60.0

# It is ready, takes a job, sends what the test has written down, as often as that says, and then neither speaks nor ends.
SCRIPT = """
import pathlib, signal, socket, sys, time
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
folder, fd = pathlib.Path(sys.argv[1]), int(sys.argv[2])
end = socket.socket(fileno=fd)
end.recv(1 << 20)
end.sendall((folder / "ready").read_bytes())
deed, times = (folder / "deed").read_bytes(), int((folder / "times").read_text())
if (folder / "reads").exists():
    end.recv(1 << 20)
for _ in range(times):
    end.sendall(deed)
if (folder / "hangs_up").exists():
    end.close()
while True:
    time.sleep(3600)
"""

READY = frame(FROM_WORKER.encode(Ready("scripted", "base", "cpu", "fp32", 0.1)))
FORMATS = ("txt", "srt", "vtt", "json", "html")
DIGESTS = dict.fromkeys(FORMATS, "0b" * 32)
RESULT = Result(1.0, 1.0, "0a" * 32, "en", 0.9, "scripted", "base", "cpu", FORMATS, digests=DIGESTS)
OTHER = dataclasses.replace(RESULT, outputs=("../../inbox/x",), digests={"../../inbox/x": "0b" * 32})
HEARTBEAT = Heartbeat("job", Phase.TRANSCRIBING, 0.5, 1.0)


def said(message, **changes):
    return frame(FROM_WORKER.encode(dataclasses.replace(message, **changes)))


class Lab:
    """A pool whose workers are hostile until the test says otherwise, on a clock that the test moves."""

    def __init__(self, tmp_path, monkeypatch):
        self.folder = tmp_path
        self.monkeypatch = monkeypatch
        self.events = []
        (tmp_path / "hostile.py").write_text(SCRIPT)
        self.write(ready=READY, deed=b"", times=b"0", reads=b"")
        emitter = events.Emitter()
        emitter.subscribe(self.events.append)
        settings = config.validate({"root": str(tmp_path), "engine": "scripted"}, source="test")
        self.engine = settings.engine_options()
        self.spec = resolve(settings, "")
        self.pool = Pool(settings.pool_options(), self.engine, emitter)
        self.now = 0.0
        popen = subprocess.Popen
        self.is_hostile = True

        def start(command, **options):
            if self.is_hostile and "whisperd.worker" in command:
                command = [sys.executable, str(tmp_path / "hostile.py"), str(tmp_path), command[-1]]
            return popen(command, **options)

        monkeypatch.setattr(subprocess, "Popen", start)

    def write(self, **files):
        for name, content in files.items():
            (self.folder / name).write_bytes(content)

    def until(self, condition, step=0.0):
        """Turn the loop until something is true; everything heard meanwhile."""
        heard = []
        deadline = time.monotonic() + SOON
        while not condition(heard):
            assert time.monotonic() < deadline, heard[-5:]
            self.pool.tick(self.now)
            wait(self.pool.waitables(), timeout=0.05)
            heard += self.pool.collect(self.now)
            self.now += step
        return heard

    def give(self, job_id="job", source=None):
        self.until(lambda heard: self.pool.free(self.engine))
        directory = self.folder / job_id
        directory.mkdir(exist_ok=True)
        child = self.pool.free(self.engine)
        self.pool.assign(child, Work(job_id, directory, source or directory / "x", self.spec), self.now)
        return child

    def goes_on(self):
        """Whether an honest worker takes the place, and does a job."""
        self.is_hostile = False
        self.until(lambda heard: any(isinstance(message, Ready) for message in heard), step=0.5)
        self.give("honest", tone(self.folder / "honest.wav"))
        return isinstance(self.until(lambda heard: heard and isinstance(heard[-1], Finished | Failed))[-1], Finished)

    def ends(self):
        return [event.how for event in self.events if isinstance(event, events.WorkerEnded)]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    lab = Lab(tmp_path, monkeypatch)
    yield lab
    lab.pool.kill_all()


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        pytest.param(b"\x80\x04\x95" + bytes(100), "too long", id="garbage"),
        pytest.param(frame(b"cos\nsystem\n(S'touch /tmp/owned'\ntR."), "not JSON", id="pickle"),
        pytest.param(b"\xff\xff\xff\xff", "too long", id="a huge length"),
        pytest.param(frame(b"[1, 2, 3]"), "kind is unknown", id="another shape"),
        pytest.param(frame(b'{"kind":"Work","job_id":"job"}'), "kind is unknown", id="an order"),
        pytest.param(frame(b'{"kind":"Heartbeat","job_id":"job"}'), "Heartbeat: ", id="half a heartbeat"),
        pytest.param(said(HEARTBEAT).replace(b"0.5", b"NaN"), "Heartbeat: ", id="progress of NaN"),
        pytest.param(said(HEARTBEAT, job_id="other"), "does not have that job", id="progress of another job"),
        pytest.param(said(Finished("other", RESULT)), "does not have that job", id="result of another job"),
        pytest.param(
            said(Finished("job", OTHER)),
            "formats",
            id="other formats",
        ),
        pytest.param(said(Released("job")), "nobody asked", id="released unasked"),
        pytest.param(said(BootFailed(Failure("boot", "x", ""))), "ready before", id="cannot load after it had"),
        pytest.param(READY, "ready before", id="ready twice"),
        pytest.param(said(HEARTBEAT) + frame(b"[" * TEXT_MAX), "not JSON", id="nonsense after sense"),
    ],
)
def test_a_worker_that_talks_nonsense_is_ended(lab, deed, reason):
    """Its job is answered for as if the worker had died, one line says why, and the next worker does its work."""
    lab.write(deed=deed, times=b"1")
    lab.give()
    heard = lab.until(lambda heard: any(isinstance(message, Failed) for message in heard))

    assert [type(message) for message in heard if not isinstance(message, Heartbeat)] == [Failed]
    assert (heard[-1].job_id, heard[-1].failure.code, heard[-1].failure.retryable) == ("job", "worker_died", True)
    assert reason in heard[-1].failure.message
    (how,) = lab.ends()
    assert how.startswith("was killed because it broke the protocol (")
    assert reason in how
    assert lab.goes_on()


def test_a_flood_is_ended(lab):
    """Each turn of the loop reads a portion of it."""
    lab.write(deed=100 * said(HEARTBEAT), times=b"100000000")
    lab.give()
    heard = lab.until(lambda heard: any(isinstance(message, Failed) for message in heard))

    assert "too many messages" in heard[-1].failure.message
    assert lab.goes_on()


@pytest.mark.parametrize("deed", [b"\0\0", said(HEARTBEAT)[:-1], (1 << 20).to_bytes(4, "big")])
def test_half_a_message_and_then_silence(lab, deed):
    """It is no sign of progress: the loop turns on, and the worker is stopped like any that hangs."""
    lab.write(deed=deed, times=b"1")
    lab.give()
    heard = lab.until(lambda heard: any(isinstance(message, Failed) for message in heard), step=60.0)

    assert heard[-1].failure.code == "timeout"
    assert lab.goes_on()


def test_a_worker_that_never_reads_is_given_no_more(lab):
    """What cannot be sent is kept, up to a bound, and nobody waits for it."""
    (lab.folder / "reads").unlink()
    child = lab.give()
    for _ in range(100_000):
        child.release()

    assert child.connection.is_behind
    assert lab.pool.free(lab.engine) is None
    lab.until(lambda heard: any(isinstance(message, Failed) for message in heard), step=60.0)
    assert lab.goes_on()


def test_a_worker_that_hangs_up_and_goes_on_is_ended(lab):
    """The closed pipe does not make the loop spin until then."""
    lab.write(hangs_up=b"")
    child = lab.give()
    lab.until(lambda heard: child.connection.is_closed)

    assert child.connection not in lab.pool.waitables()
    assert lab.pool.free(lab.engine) is None
    heard = lab.until(lambda heard: any(isinstance(message, Failed) for message in heard), step=10.0)
    assert "did not end" in heard[-1].failure.message
    assert lab.goes_on()


def test_an_idle_worker_that_is_told_to_end_and_does_not(lab):
    """It would keep its place for ever."""
    lab.until(lambda heard: heard)
    lab.pool.wind_down()
    lab.until(lambda heard: lab.pool.is_empty(), step=pools.ENDING_SECONDS / 4)

    assert lab.ends() == ["was killed because it did not end when it should have"]


def test_a_long_recording_cannot_be_claimed_to_win_time(lab):
    """The deadline follows what is said of the length, up to the longest that is allowed."""
    lab.write(deed=said(HEARTBEAT, duration_seconds=1e9), times=b"1")
    child = lab.give()
    lab.until(lambda heard: heard)

    assert child.jobs["job"].deadline < 1e7
