"""The pipeline of a worker, over a real pipe, with real recordings and an engine that a test can read."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from support.audio import encode
from support.daemon import tone
from support.lines import line_pair

from whisperd.core.errors import EngineError, InputError, OutOfMemory
from whisperd.core.job import Phase
from whisperd.core.transcript import Segment, Transcript
from whisperd.engine.api import DecodedWindow, EngineInfo, RecordingEngine
from whisperd.protocol import EngineFailed, Failed, Finished, Heartbeat, Quit, Release, Released, Work
from whisperd.settings import config
from whisperd.settings.profiles import resolve
from whisperd.worker import pipeline, render
from whisperd.worker.pipeline import Pipeline
from whisperd.worker.resume_log import ResumeLog


class LoudEngine:
    """Says how long each window is and how loud; `capacity` windows at once, one step for each."""

    info = EngineInfo("loud", "none", "cpu", "fp32")
    takes_recordings = False

    def __init__(self, capacity=4):
        self.capacity = capacity
        self.heard = []  # the length of each window, in the order in which they were done
        self.trouble = []  # errors to raise, one per step
        self.pause_at = None  # how many windows are done before it waits for the gate; None: it always does
        self.reached = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self._handles = itertools.count(1)
        self._open = {}

    @property
    def pending(self):
        return len(self._open)

    def check(self, options):
        pass

    def submit(self, window):
        handle = next(self._handles)
        self._open[handle] = window
        return handle

    def withdraw(self, handle):
        self._open.pop(handle, None)

    def step(self, report):
        if self.pause_at is None or len(self.heard) == self.pause_at:
            self.reached.set()
            assert self.gate.wait(30)
        if self.trouble:
            raise self.trouble.pop(0)
        batch = list(self._open.items())[: self.capacity]
        for handle, _ in batch[:1]:
            del self._open[handle]
        return [(handle, self._decode(window)) for handle, window in batch[:1]]

    def shrink(self):
        if self.capacity == 1:
            return False
        self.capacity //= 2
        return True

    def _decode(self, window):
        seconds = len(window.audio) / 16_000
        self.heard.append(round(seconds, 1))
        text = f" {seconds:.2f} s at {np.abs(window.audio.astype(int)).mean():.0f}"
        segment = Segment(0.0, seconds, text)
        return DecodedWindow(
            window.language or "en",
            0.9,
            (segment,),
            seconds,
            0.0,
            -0.1,
            1.0,
            0.0,
            silent=False,
            attempts=1,
            looped=False,
        )


class Worker:
    """A pipeline on a thread, and the supervisor's end of its pipe."""

    def __init__(self, tmp_path, engine, **output):
        self.tmp_path, self.engine = tmp_path, engine
        self.ours, self.theirs = line_pair()
        settings = config.validate(
            {"vad": {"enabled": False}, "output": {"formats": ["txt"], "layout": "raw", **output}}, source="test"
        )
        self.spec = resolve(settings, "")
        self.pipeline = Pipeline(self.theirs, engine, None)
        self.thread = threading.Thread(target=self.pipeline.serve)
        self.thread.start()

    def give(self, job_id, source, directory=None):
        directory = directory or self.tmp_path / job_id
        directory.mkdir(exist_ok=True)
        self.ours.send(Work(job_id, directory, source, self.spec))

    def until(self, *kinds, count=1):
        """Everything it says up to the `count`th message of these kinds."""
        said = []
        while sum(isinstance(message, kinds) for message in said) < count:
            assert self.ours.poll(30), said
            said.append(self.ours.receive())
        return said

    def pause_at(self, window):
        """Let the engine wait at this window from here on; what it has heard so far is forgotten."""
        self.engine.heard.clear()
        self.engine.reached.clear()
        self.engine.pause_at = window
        self.engine.gate.clear()

    def release(self, job_id):
        """Want a job back while the engine waits, and let it go on until it is released."""
        self.ours.send(Release(job_id))
        self.engine.gate.set()
        self.until(Released)

    def text(self, job_id):
        return (self.tmp_path / job_id / "outputs/txt").read_text()

    def close(self):
        self.ours.send(Quit())
        self.thread.join(30)
        self.ours.close()
        self.theirs.close()

        assert not self.thread.is_alive()


@pytest.fixture
def worker(tmp_path):
    worker = Worker(tmp_path, LoudEngine())
    yield worker
    worker.engine.gate.set()
    worker.close()


def test_a_recording_comes_out_whole(worker, tmp_path):
    """All of it is covered, in order; the result says what was done; progress reaches the end."""
    worker.give("a", tone(tmp_path / "a.wav", seconds=75.0))
    said = worker.until(Finished, Failed)
    result = said[-1].result

    lengths = [float(line.split()[0]) for line in worker.text("a").splitlines()]
    assert sum(lengths) == pytest.approx(75.0, abs=0.1)
    assert all(length <= 30.0 for length in lengths)
    assert result.duration_seconds == pytest.approx(75.0)
    assert result.quality["windows"] == len(lengths) == 3
    progress = [message.processed_seconds for message in said if isinstance(message, Heartbeat)]
    assert progress == sorted(progress)
    assert not (tmp_path / "a/audio.s16le").exists()


def two_tracks(path, seconds):
    """75 s at one loudness, and some at another."""
    quiet, loud = tone(path.with_name("quiet.wav"), 75.0), tone(path.with_name("loud.wav"), seconds)
    filters = ("-filter:a:1", "volume=0.1", "-c:a", "pcm_s16le")
    titles = ("-metadata:s:a:0", "title=Ann", "-metadata:s:a:1", "title=Bob")
    return encode(path, "-i", loud, "-i", quiet, "-map", "1", "-map", "0", *filters, *titles)


def test_tracks_of_different_length_come_out_whole(worker, tmp_path):
    """Each is covered to its own end; the length and the progress are those of the longest."""
    worker.spec = dataclasses.replace(worker.spec, media=worker.spec.media.evolve(tracks="all"))
    worker.give("a", two_tracks(tmp_path / "a.mkv", seconds=40.0))
    said = worker.until(Finished, Failed)
    result = said[-1].result

    lengths = {"Ann": [], "Bob": []}
    for line in worker.text("a").splitlines():
        name, _, text = line.partition(": ")
        lengths[name].append(float(text.split()[0]))
    assert sum(lengths["Ann"]) == pytest.approx(75.0, abs=0.1)
    assert sum(lengths["Bob"]) == pytest.approx(40.0, abs=0.1)
    assert sum(worker.engine.heard) == pytest.approx(115.0, abs=1.0)
    assert result.duration_seconds == pytest.approx(75.0)
    assert result.quality["speech_seconds"] == pytest.approx(115.0, abs=0.1)
    beats = [message for message in said if isinstance(message, Heartbeat)]
    assert [beat.processed_seconds for beat in beats] == sorted(beat.processed_seconds for beat in beats)
    assert beats[-1].processed_seconds == pytest.approx(75.0)
    assert {beat.duration_seconds for beat in beats if beat.duration_seconds} == {result.duration_seconds}
    assert not (tmp_path / "a/audio.s16le").exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [pytest.param("all", "all", id="all"), pytest.param(2, 2, id="one"), pytest.param(1, 2, id="another")],
)
def test_tracks_are_resumed_where_they_were(worker, tmp_path, before, after):
    """Only the rest is decoded; what is on record of one track is not taken for another, though its windows are the same."""
    source = two_tracks(tmp_path / "a.mkv", seconds=75.0)
    specs = {
        each: dataclasses.replace(worker.spec, media=worker.spec.media.evolve(tracks=each)) for each in (before, after)
    }
    worker.spec = specs[after]
    worker.give("plain", source)
    worker.until(Finished)
    worker.pause_at(1)
    worker.spec = specs[before]
    worker.give("a", source)
    assert worker.engine.reached.wait(30)
    worker.release("a")
    done = len(worker.engine.heard)
    worker.engine.pause_at = -1
    worker.spec = specs[after]
    worker.give("a", source)
    result = worker.until(Finished)[-1].result

    assert done >= 1
    assert result.quality["resumed_windows"] == (done if before == after else 0)
    assert worker.text("a") == worker.text("plain")


def test_a_short_memo_does_not_wait_behind_a_long_meeting(worker, tmp_path):
    """Jobs take turns window by window."""
    worker.engine.gate.clear()
    worker.give("long", tone(tmp_path / "long.wav", seconds=600.0))
    worker.until(Heartbeat)
    worker.give("short", tone(tmp_path / "short.wav", seconds=5.0))
    worker.until(Heartbeat, count=2)
    worker.engine.gate.set()
    said = worker.until(Finished, count=2)
    finished = [message.job_id for message in said if isinstance(message, Finished)]

    assert finished == ["short", "long"]
    assert worker.engine.heard.index(5.0) <= 10


def test_a_job_that_is_wanted_back_is_released_and_goes_on_where_it_was(worker, tmp_path):
    """What was finished is in the resume log: the second time only the rest is decoded, and the text is the same."""
    source = tone(tmp_path / "a.wav", seconds=200.0)
    worker.give("plain", source)
    worker.until(Finished)
    whole = list(worker.engine.heard)
    worker.pause_at(3)
    worker.give("a", source)
    assert worker.engine.reached.wait(30)
    worker.release("a")
    done = len(worker.engine.heard)
    worker.engine.heard.clear()
    worker.engine.pause_at = -1
    worker.give("a", source)
    result = worker.until(Finished)[-1].result

    assert done < len(whole)
    assert result.quality["resumed_windows"] == done
    assert len(worker.engine.heard) == len(whole) - done
    assert worker.text("a") == worker.text("plain")


def test_a_bad_recording_fails_alone(worker, tmp_path):
    """The others of the batch go on."""
    (tmp_path / "bad.mp3").write_text("no music")
    worker.give("bad", tmp_path / "bad.mp3")
    worker.give("good", tone(tmp_path / "good.wav", seconds=40.0))
    said = worker.until(Finished, Failed, count=2)
    ends = {message.job_id: message for message in said if isinstance(message, Finished | Failed)}

    assert ends["bad"].failure.code == "not_media"
    assert isinstance(ends["good"], Finished)


def test_out_of_memory_makes_the_batch_smaller(worker, tmp_path):
    """Nothing is lost; what was done is said."""
    worker.engine.trouble = [OutOfMemory("no memory"), OutOfMemory("no memory")]
    worker.give("a", tone(tmp_path / "a.wav", seconds=40.0))
    result = worker.until(Finished, Failed)[-1].result

    assert worker.engine.capacity == 1
    assert result.quality["batch_size"] == 1


def test_out_of_memory_with_a_batch_of_one_ends_the_worker(tmp_path):
    """The supervisor then tries a fresh one."""
    worker = Worker(tmp_path, LoudEngine(capacity=1))
    worker.engine.trouble = [OutOfMemory("no memory", hint="use a smaller model")]
    worker.give("a", tone(tmp_path / "a.wav", seconds=40.0))
    failed = worker.until(EngineFailed)[-1]
    worker.close()

    assert (failed.failure.code, failed.failure.retryable) == ("out_of_memory", True)
    assert failed.failure.hint == "use a smaller model"


@pytest.mark.parametrize("error", [EngineError("CUDA error: device-side assert triggered"), KeyError("cache")])
@pytest.mark.parametrize("where", ["submit", "step"])
def test_an_unexpected_error_of_the_engine_ends_the_worker(worker, tmp_path, monkeypatch, error, where):
    """Every later call may fail too; the jobs in the batch are named, and the failure has a hint."""

    def fail(*arguments):
        raise error

    monkeypatch.setattr(worker.engine, where, fail)
    worker.give("a", tone(tmp_path / "a.wav", seconds=40.0))
    said = worker.until(EngineFailed)

    assert not [message for message in said if isinstance(message, Failed | Finished)]
    assert said[-1].job_ids == ("a",)
    assert said[-1].failure.code == ("engine" if isinstance(error, EngineError) else "internal")
    assert said[-1].failure.retryable
    assert "if others fail too, the model or the device is at fault" in said[-1].failure.hint


def test_a_job_that_is_still_prepared_is_not_in_the_batch(worker, tmp_path):
    """The engine has heard nothing of it."""
    worker.engine.gate.clear()
    worker.give("a", tone(tmp_path / "a.wav", seconds=40.0))
    assert worker.engine.reached.wait(30)
    worker.give("b", tone(tmp_path / "b.wav", seconds=40.0))
    worker.engine.trouble = [EngineError("broken")]
    worker.engine.gate.set()

    assert worker.until(EngineFailed)[-1].job_ids == ("a",)


def test_what_a_job_is_known_to_cause_ends_nothing_but_the_job(worker, tmp_path, monkeypatch):
    """A recording that the engine refuses fails, and the worker continues."""

    def refuse(*arguments):
        raise InputError("not so", code="unsupported")

    with monkeypatch.context() as patched:
        patched.setattr(worker.engine, "submit", refuse)
        worker.give("a", tone(tmp_path / "a.wav", seconds=5.0))
        assert worker.until(Failed, EngineFailed)[-1].failure.code == "unsupported"
    worker.give("b", tone(tmp_path / "b.wav", seconds=5.0))

    assert isinstance(worker.until(Finished)[-1], Finished)


@pytest.mark.parametrize("where", ["__init__", "add"])
def test_no_room_for_the_journal_costs_no_attempt(worker, tmp_path, monkeypatch, where):
    """A full disk is nobody's fault, wherever it is met."""

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ResumeLog, where, full)
    worker.give("a", tone(tmp_path / "a.wav", seconds=5.0))

    assert worker.until(Failed)[-1].failure.code == "spool_full"


def test_released_while_it_is_being_prepared(worker, tmp_path):
    """The job is given back at the next report of ffmpeg."""
    worker.give("a", tone(tmp_path / "a.wav", seconds=3600.0, rate=8000))
    worker.ours.send(Release("a"))

    assert isinstance(worker.until(Released, Finished)[-1], Released)


def test_released_when_it_had_just_been_prepared(worker, tmp_path, wait_until):
    """A thread that has said its last word cannot give the job back; the loop does."""
    first, second = threading.Event(), threading.Event()
    worker.engine.gate = first
    worker.give("other", tone(tmp_path / "other.wav", seconds=60.0))
    assert worker.engine.reached.wait(30)
    worker.give("a", tone(tmp_path / "a.wav", seconds=5.0))  # heard of after the first step
    worker.engine.gate = second
    first.set()
    wait_until(lambda: worker.pipeline._prepared, what="the end of the preparation")
    worker.ours.send(Release("a"))
    second.set()
    said = worker.until(Finished, Released, count=2)

    assert [type(message) for message in said if getattr(message, "job_id", "") == "a"][-1] is Released


def test_a_job_that_is_taken_away_harms_no_other(worker, tmp_path):
    """The others of its batches come out as if it had never been there, and none of their windows is decoded twice."""
    lengths = {"b": 97.0, "c": 61.0}
    sources = {name: tone(tmp_path / f"{name}.wav", seconds, frequency=seconds) for name, seconds in lengths.items()}
    for name, source in sources.items():
        worker.give(f"{name} alone", source, tmp_path / f"{name} alone")
    worker.until(Finished, count=2)
    windows = len(worker.engine.heard)
    worker.pause_at(4)
    for name, source in {"a": tone(tmp_path / "a.wav", 600.0), **sources}.items():
        worker.give(name, source)
    assert worker.engine.reached.wait(30)
    worker.ours.send(Release("a"))
    worker.engine.gate.set()
    said = worker.until(Finished, Released, count=3)

    assert sorted(message.job_id for message in said if isinstance(message, Finished)) == ["b", "c"]
    assert len(worker.engine.heard) <= windows + 4
    assert all(worker.text(name) == worker.text(f"{name} alone") for name in lengths)


@pytest.fixture
def partial_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(render, "PARTIAL_SECONDS", 0.0)
    worker = Worker(tmp_path, LoudEngine(), partial=True)
    yield worker
    worker.engine.gate.set()
    worker.close()


def test_the_text_so_far_grows_with_the_windows_and_comes_back_from_the_resume_log(
    partial_worker, tmp_path, wait_until
):
    """It is always the beginning of the transcript, and nothing that is on record is missing from it."""
    worker, text = partial_worker, tmp_path / "a/partial.txt"
    source = tone(tmp_path / "a.wav", seconds=300.0)
    worker.give("plain", source)
    worker.until(Finished)
    worker.pause_at(8)  # after the vote
    worker.give("a", source)
    assert worker.engine.reached.wait(30)
    before = text.read_text()
    worker.release("a")
    worker.pause_at(0)
    text.write_text("of another attempt\n")
    worker.give("a", source)
    assert worker.engine.reached.wait(30)
    after = text.read_text()
    worker.engine.gate.set()
    worker.until(Finished)

    whole = worker.text("a")
    assert before
    assert after.startswith(before)
    assert whole.startswith(after)
    assert len(after) < len(whole) == len(worker.text("plain"))


def test_no_room_for_the_text_so_far_does_not_harm_the_job(partial_worker, tmp_path, monkeypatch, caplog):
    """It is logged once, however many windows follow."""

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(render, "extend", full)
    partial_worker.give("a", tone(tmp_path / "a.wav", seconds=200.0))

    assert isinstance(partial_worker.until(Finished, Failed)[-1], Finished)
    assert [record.message for record in caplog.records if "so far" in record.message] == [
        "job a: its text so far cannot be written: No space left on device"
    ]


def test_where_nobody_wants_the_text_so_far_none_is_written(worker, tmp_path):
    """As by default."""
    worker.give("a", tone(tmp_path / "a.wav", seconds=75.0))
    worker.until(Finished)

    assert not (tmp_path / "a/partial.txt").exists()


def test_a_priority_that_is_refused_harms_nothing(worker, tmp_path, monkeypatch):
    """As to a user whose daemon was started with a higher nice value, or by a filter of system calls."""

    def refused(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "setpriority", refused)
    worker.give("a", tone(tmp_path / "a.wav", seconds=5.0))

    assert isinstance(worker.until(Finished, Failed)[-1], Finished)


@pytest.mark.parametrize(("base", "then"), [(0, 10), (3, 13), (11, 19)])
def test_the_priority_of_preparing_is_relative(worker, tmp_path, monkeypatch, base, then):
    """It is lower than that of the daemon, whatever that was started with."""
    asked = []
    monkeypatch.setattr(os, "getpriority", lambda which, who: base)
    monkeypatch.setattr(os, "setpriority", lambda which, who, nice: asked.append(nice))
    worker.give("a", tone(tmp_path / "a.wav", seconds=5.0))
    worker.until(Finished)

    assert asked == [then]


PREPARE = f"""
import os, sys, threading
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from integration import test_pipeline as tests
from whisperd.worker import pipeline

prepare = pipeline.prepare
nice = []
pipeline.prepare = lambda *arguments, **named: (nice.append(os.nice(0)), prepare(*arguments, **named))[1]
ground = Path(sys.argv[1])
worker = tests.Worker(ground, tests.LoudEngine())
worker.give("a", tests.tone(ground / "a.wav", seconds=5.0))
end = worker.until(tests.Finished, tests.Failed)[-1]
worker.close()
print(type(end).__name__, os.nice(0), nice)
"""


def test_a_worker_started_with_a_high_nice_value_prepares(tmp_path):
    """As by `Nice=11` in a drop-in: whoever is not root, or root without its privileges, may not go back below that."""
    unprivileged = ["setpriv", "--bounding-set", "-all"] if os.geteuid() == 0 else []
    command = [*unprivileged, "nice", "-n", str(11 - os.nice(0)), sys.executable, "-c", PREPARE, tmp_path]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)

    assert done.stdout.split(maxsplit=1) == ["Finished", "11 [19]\n"]


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), SystemExit(1), KeyboardInterrupt(), MemoryError()], ids=repr
)
def test_a_preparing_thread_that_dies_is_heard_at_once(worker, tmp_path, monkeypatch, error):
    """With the true reason: it is not found ten minutes later by its silence."""

    def die(*arguments, **named):
        raise error

    monkeypatch.setattr(pipeline, "prepare", die)
    worker.give("a", tone(tmp_path / "a.wav", seconds=5.0))
    failure = worker.until(Failed)[-1].failure

    assert failure.code == ("out_of_memory" if isinstance(error, MemoryError) else "internal")
    assert type(error).__name__ in failure.message or isinstance(error, MemoryError)


def test_a_preparing_thread_that_cannot_start_is_heard_at_once(worker, tmp_path, monkeypatch):
    """At a limit of tasks this job fails, with the true reason; the worker goes on."""

    def refused(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        worker.give("a", tone(tmp_path / "a.wav", seconds=5.0))
        assert "can't start new thread" in worker.until(Failed)[-1].failure.message
    worker.give("b", tone(tmp_path / "b.wav", seconds=5.0))
    assert isinstance(worker.until(Finished, Failed)[-1], Finished)


class PatientEngine(RecordingEngine):
    """Takes whole recordings; says the length of each, after a report for each second of it."""

    info = EngineInfo("patient", "none", "cpu", "fp32")

    def __init__(self):
        super().__init__()
        self.trouble = []  # errors to raise, one for each recording
        self.heard = []
        self.reached = threading.Event()
        self.pause_at = None  # seconds after which it waits for the gate
        self.gate = threading.Event()

    def check(self, options):
        pass

    def transcribe(self, audio, options, report):
        seconds = len(audio) / 16_000
        self.heard.append(seconds)
        if self.trouble:
            raise self.trouble.pop(0)
        for done in range(int(seconds)):
            report(float(done))
            if done == self.pause_at:
                self.reached.set()
                assert self.gate.wait(30)
        report(seconds)
        text = f" {seconds:.2f} s at {np.abs(audio.astype(int)).mean():.0f}"
        return Transcript(text, (Segment(1.0, seconds, text, seek=100),), options.language or "en", 0.75)


@pytest.fixture
def patient_worker(tmp_path):
    worker = Worker(tmp_path, PatientEngine())
    yield worker
    worker.engine.gate.set()
    worker.close()


def test_an_engine_of_whole_recordings_is_driven_alike(patient_worker, tmp_path, monkeypatch):
    """It gets the recording at once, uncopied; the same phases and heartbeats are heard, and the same result comes."""
    monkeypatch.setattr(pipeline, "HEARTBEAT_SECONDS", 0.0)
    patient_worker.give("a", tone(tmp_path / "a.wav", seconds=75.0))
    said = patient_worker.until(Finished, Failed)
    result = said[-1].result
    beats = [message for message in said if isinstance(message, Heartbeat)]

    assert patient_worker.engine.heard == [75.0]
    assert float(patient_worker.text("a").split()[0]) == 75.0
    assert list(dict.fromkeys(beat.phase for beat in beats)) == [Phase.DECODING, Phase.TRANSCRIBING, Phase.PUBLISHING]
    progress = [beat.processed_seconds for beat in beats if beat.phase is Phase.TRANSCRIBING]
    assert progress == sorted(progress)
    assert {30.0, 75.0} <= set(progress)
    assert (result.duration_seconds, result.language, result.language_probability) == (75.0, "en", 0.75)


def test_a_recording_is_wanted_back_while_it_is_transcribed(patient_worker, tmp_path):
    """The engine is interrupted at its next report, and the worker takes the next job."""
    engine = patient_worker.engine
    engine.pause_at = 3
    patient_worker.give("a", tone(tmp_path / "a.wav", seconds=75.0))
    assert engine.reached.wait(30)
    patient_worker.ours.send(Release("a"))
    engine.gate.set()

    assert isinstance(patient_worker.until(Released, Finished)[-1], Released)
    patient_worker.give("b", tone(tmp_path / "b.wav", seconds=5.0))
    assert isinstance(patient_worker.until(Finished, Failed)[-1], Finished)
    assert engine.heard == [75.0, 5.0]


@pytest.mark.parametrize(
    ("error", "code"),
    [(InputError("no speech", code="unsupported"), "unsupported"), (OutOfMemory("no memory"), "out_of_memory")],
)
def test_a_recording_that_the_engine_cannot_take_fails_alone(patient_worker, tmp_path, error, code):
    """Memory that one recording lacks may do for the next."""
    patient_worker.engine.trouble = [error]
    patient_worker.give("a", tone(tmp_path / "a.wav", seconds=5.0))
    assert patient_worker.until(Finished, Failed, EngineFailed)[-1].failure.code == code
    patient_worker.give("b", tone(tmp_path / "b.wav", seconds=6.0))

    assert isinstance(patient_worker.until(Finished, Failed)[-1], Finished)


def test_an_engine_of_whole_recordings_that_fails_ends_the_worker(patient_worker, tmp_path):
    """As one that takes windows does."""
    patient_worker.engine.trouble = [RuntimeError("CUDA error: device-side assert triggered")]
    patient_worker.give("a", tone(tmp_path / "a.wav", seconds=5.0))

    assert patient_worker.until(EngineFailed)[-1].job_ids == ("a",)


def test_a_transcript_that_could_not_be_rendered_is_not_decoded_again(patient_worker, tmp_path, monkeypatch):
    """Hours of work are in the resume log, whichever engine did it."""

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    source = tone(tmp_path / "a.wav", seconds=5.0)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "render", full)
        patient_worker.give("a", source)
        assert isinstance(patient_worker.until(Failed)[-1], Failed)
    patient_worker.give("a", source)

    assert patient_worker.until(Finished, Failed)[-1].result.quality == {"resumed_windows": 1}
    assert patient_worker.engine.heard == [5.0]


def test_the_supervisor_goes_while_a_recording_is_transcribed(tmp_path):
    """The worker ends; nobody would hear it."""
    engine = PatientEngine()
    engine.pause_at = 3
    worker = Worker(tmp_path, engine)
    ended = []
    worker.give("a", tone(tmp_path / "a.wav", seconds=75.0))
    assert engine.reached.wait(30)
    threading.excepthook, before = (lambda arguments: ended.append(arguments.exc_type)), threading.excepthook
    try:
        worker.ours.close()
        engine.gate.set()
        worker.thread.join(30)
        worker.theirs.close()
    finally:
        threading.excepthook = before

    assert not worker.thread.is_alive()
    assert issubclass(ended[0], EOFError | ConnectionError)
