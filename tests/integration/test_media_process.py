"""The ffmpeg process itself: its heartbeat, its end, and what it costs."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import audio

from whisperd.core.errors import EngineError, JobTimeout, SpoolFull
from whisperd.core.options import MediaOptions
from whisperd.media import ffmpeg
from whisperd.media.decode import decode


@pytest.fixture
def options(ffmpeg_path):
    """Limits, and one ffmpeg after the other."""
    return MediaOptions(ffmpeg=ffmpeg_path, max_duration_seconds=7200.0, stall_seconds=60.0)


@pytest.fixture(scope="session")
def ten_minutes(tmp_path_factory):
    return audio.long_wav(tmp_path_factory.mktemp("long") / "long.wav", 600)


@pytest.fixture
def every_beat(monkeypatch):
    """Every report is passed on, as if each took half a second."""
    monkeypatch.setattr(ffmpeg, "BEAT_SECONDS", 0.0001)


@pytest.fixture
def fake(tmp_path):
    """Makes an ffmpeg that answers when asked what it is, and then does as told."""

    def make(script, stall_seconds=30.0):
        path = tmp_path / "ffmpeg"
        answer = "echo 'ffmpeg version 7.0-fake' >&2; echo ' fd'; exit 0"
        path.write_text(f'#!/bin/sh\ncase "$*" in *-protocols*) {answer};; esac\n{script}\n')
        path.chmod(0o755)
        return MediaOptions(ffmpeg=path, max_duration_seconds=60.0, stall_seconds=stall_seconds)

    return make


def ignore(_seconds):
    """A heartbeat that nobody hears."""


def children():
    """The process ids of this process's children."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def test_reports_never_go_back(ten_minutes, options, samples, every_beat):
    """The heartbeat tells seconds decoded, growing, up to all of them."""
    reported = []

    decoded = decode(ten_minutes, samples, options, reported.append)

    assert all(before <= after for before, after in itertools.pairwise(reported))
    assert len(set(reported)) > 10
    assert reported[-1] == decoded.duration_seconds == 600.0


def test_what_the_report_raises_ends_ffmpeg(ten_minutes, options, samples, every_beat):
    """A job that is called back leaves no ffmpeg behind, and no samples."""
    seen = []

    class CalledBack(BaseException):
        pass

    def report(seconds):
        if seconds:
            seen.append(children())
            raise CalledBack

    before = children()
    with pytest.raises(CalledBack):
        decode(ten_minutes, samples, options, report)

    assert len(seen[0] - before) == 1
    assert children() == before
    assert not samples.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV], ids=lambda number: number.name)
def test_a_killed_ffmpeg_may_be_tried_again(number, ten_minutes, options, samples, every_beat):
    """What was decoded before ffmpeg was killed does not pass for the recording, nor is the recording to blame."""
    before, killed = children(), set()

    def report(seconds):
        for pid in children() - before - killed if seconds else ():
            os.kill(pid, number)
            killed.add(pid)

    with pytest.raises(EngineError) as caught:
        decode(ten_minutes, samples, options, report)

    assert (caught.value.job_code, caught.value.stage, caught.value.retryable) == ("ffmpeg_died", "decoding", True)
    assert len(killed) == 1
    assert not samples.exists()


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("exec sleep 600", id="from the start"),
        pytest.param("head -c 64000 /dev/zero; exec sleep 600", id="after some output"),
        pytest.param("exec >&- 2>&-; exec sleep 600", id="with its pipes closed"),
    ],
)
def test_a_stalled_ffmpeg_is_ended(script, fake, samples, tmp_path):
    """Neither output nor input for the time allowed: it is killed, and the heartbeat went on until then."""
    reported = []
    before = children()
    started = time.monotonic()

    with pytest.raises(JobTimeout, match=r"for 0\.3 s") as caught:
        decode(audio.wav(tmp_path / "a.wav"), samples, fake(script, stall_seconds=0.3), reported.append)

    assert time.monotonic() - started < 10
    assert caught.value.stage == "decoding"
    assert reported
    assert children() == before


def test_reading_is_not_stalling(fake, samples, tmp_path):
    """An ffmpeg that reads on without giving anything, as in a long picture with a short sound track, is let be."""
    script = (
        "for n in 1 2 3 4 5 6; do sleep 0.1; head -c 1000 >/dev/null; read -r line; done <&0; head -c 32000 /dev/zero"
    )
    talk = "echo '[info] Input #0, x, from x' >&2; echo '[info]   Stream #0:0: Audio: x' >&2"
    source = tmp_path / "a.txt"
    source.write_text("a line of a recording\n" * 1000)

    decoded = decode(source, samples, fake(f"{talk}; {script}", stall_seconds=0.4), ignore)

    assert decoded.samples == 16_000


def test_floods_of_words_do_not_block(fake, samples, tmp_path):
    """Both pipes are emptied as they fill."""
    flood = "head -c 900000 /dev/zero | tr '\\0' 'x' >&2; head -c 900000 /dev/zero"
    talk = "echo '[info] Input #0, x, from x' >&2; echo '[info]   Stream #0:0: Audio: x' >&2"

    decoded = decode(audio.wav(tmp_path / "a.wav"), samples, fake(f"{talk}; {flood}; {flood}"), ignore)

    assert decoded.samples == 900_000


def test_a_broken_ffmpeg_is_not_the_recordings_fault(fake, samples, tmp_path):
    """An ffmpeg that says nothing of its own, as when a library is missing, may be tried again."""
    broken = fake("echo 'ffmpeg: error while loading shared libraries' >&2; exit 127")

    with pytest.raises(EngineError, match="status 127") as caught:
        decode(audio.wav(tmp_path / "a.wav"), samples, broken, ignore)

    assert caught.value.job_code == "ffmpeg_died"


def test_an_ffmpeg_that_went_away(fake, samples, tmp_path):
    """An upgrade of the system's ffmpeg while the daemon runs is no verdict on a recording."""
    gone = fake("exit 0")
    source = audio.wav(tmp_path / "a.wav")

    def report(_seconds):
        gone.ffmpeg.unlink(missing_ok=True)

    with pytest.raises(EngineError, match="cannot be started"):
        decode(source, samples, gone, report)


def test_a_full_disk(options, samples, tmp_path):
    """No room for the samples stops the intake instead of failing the job."""
    samples.symlink_to("/dev/full")

    with pytest.raises(SpoolFull, match="No space left"):
        decode(audio.wav(tmp_path / "a.wav"), samples, options, ignore)


def test_ffmpeg_is_confined(ten_minutes, options, samples, every_beat):
    """While it runs its limits stand, soft and hard alike."""
    seen = []
    before = children()

    def report(seconds):
        if seconds:
            seen.extend(Path(f"/proc/{pid}/limits").read_text() for pid in children() - before)

    decode(ten_minutes, samples, options, report)

    limits = {line[:26].strip(): line[26:].split()[:2] for line in seen[0].splitlines()[1:]}
    assert limits["Max data size"] == ["1073741824"] * 2
    assert limits["Max cpu time"] == ["7260"] * 2
    assert limits["Max file size"] == ["0"] * 2
    assert limits["Max core file size"] == ["0"] * 2
    assert limits["Max open files"] == ["16"] * 2


@pytest.mark.slow
def test_memory_does_not_grow_with_length(options, samples, tmp_path):
    """An hour needs no more memory than a minute, here and in ffmpeg."""
    program = """
import json, resource, sys
from pathlib import Path
from whisperd.core.options import MediaOptions
from whisperd.media.decode import decode
source, target, ffmpeg = map(Path, sys.argv[1:])
decode(source, target, MediaOptions(ffmpeg=ffmpeg, max_duration_seconds=7200.0, stall_seconds=60.0), lambda seconds: None)
print(json.dumps([resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]))
"""

    def peaks(seconds):
        source = audio.long_wav(tmp_path / "long.wav", seconds)
        command = [sys.executable, "-c", program, source, samples, options.ffmpeg]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    minute, hour = peaks(60), peaks(3600)

    assert samples.stat().st_size == 3600 * 32_000
    assert [long - short < 20_000 for short, long in zip(minute, hour, strict=True)] == [True, True], (minute, hour)
