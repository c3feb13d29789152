import dataclasses
import json
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from support.options import options

from whisperd.core.errors import BootError, EngineError, InputError, OutOfMemory
from whisperd.core.options import EngineOptions
from whisperd.engine.api import SAMPLE_RATE, AudioWindow, create
from whisperd.engine.scripted import Scripted, scripted_devices

OPTIONS = options(language=None, condition_on_previous_text=True)
AUDIO = np.arange(2 * SAMPLE_RATE + 4000, dtype=np.int16)


def engine_options(script):
    return EngineOptions("scripted", "base", Path("models"), device="auto", threads=1, script=script)


def make(script, **dependencies):
    return Scripted(engine_options(script), **dependencies)


def transcribe(engine, audio=AUDIO, options=OPTIONS):
    reports = []
    transcript = engine.transcribe(audio, options, reports.append)
    return transcript, reports


@pytest.mark.parametrize("script", [pytest.param("", id="no script"), "ok", "ok,raise:bug", "leak:1"])
def test_the_text_tells_which_audio_it_was_made_of(script):
    """Same samples, same text; other samples, other text; a report each second and at the end."""
    transcript, reports = transcribe(make(script))
    other, _ = transcribe(make(script), AUDIO[::-1])

    assert transcript.text == f" scripted 2.25 s sum {zlib.crc32(AUDIO.tobytes()):08x}"
    assert other.text.startswith(" scripted 2.25 s sum ")
    assert other.text != transcript.text
    assert reports == [1.0, 2.0, 2.25]


def test_a_script_can_speak_of_gpus(tmp_path):
    """Each worker is told its own, and may behave differently there."""
    script = f"windows,devices:2,@{tmp_path}/{{device}}"
    (tmp_path / "cuda:1").write_text("raise:bug")
    first, second = (create(dataclasses.replace(engine_options(script), device=f"cuda:{n}")) for n in (0, 1))
    for engine in (first, second):
        engine.submit(AudioWindow(AUDIO, OPTIONS, None))

    assert [device.name for device in scripted_devices(script)] == ["cuda:0", "cuda:1"]
    assert scripted_devices("ok") == []
    assert (first.info.device, second.info.device) == ("cuda:0", "cuda:1")
    assert len(first.step()) == 1
    with pytest.raises(RuntimeError, match="a bug"):
        second.step()


def test_an_echo_tells_what_was_asked():
    """All options, and the model."""
    transcript, _ = transcribe(make("echo"), options=OPTIONS.evolve(language="de"))

    told = json.loads(transcript.text)
    assert (told["model"], told["language"], len(told)) == ("base", "de", len(type(OPTIONS).model_fields) + 1)
    assert transcript.segments[0].text == transcript.text


def test_words_come_when_asked_for():
    """In order, inside the segment, and together its text."""
    transcript, _ = transcribe(make("ok"), options=OPTIONS.evolve(word_timestamps=True, language="de"))
    (segment,) = transcript.segments

    assert "".join(word.text for word in segment.words) == segment.text
    assert [word.start for word in segment.words[1:]] == [word.end for word in segment.words[:-1]]
    assert (segment.words[0].start, segment.words[-1].end) == (segment.start, segment.end) == (0.0, 2.25)
    assert (transcript.language, transcript.language_probability) == ("de", None)


def test_no_audio_gives_no_segment():
    """Like a real engine."""
    transcript, reports = transcribe(make("ok"), AUDIO[:0])

    assert (transcript.text, transcript.segments) == ("", ())
    assert reports == [0.0]


def test_actions_are_taken_one_a_call_and_the_last_repeats():
    """A script tells the story of one process."""
    engine = make("raise:oom, raise:engine,raise:input,raise:bug,ok")

    for error in (OutOfMemory, EngineError, InputError, RuntimeError):
        with pytest.raises(error, match="says the script"):
            transcribe(engine)
    assert transcribe(engine)[0].text == transcribe(engine)[0].text != ""


def test_a_script_in_a_file_is_read_again_at_every_call(tmp_path):
    """A test changes the engine's mind while it lives, or between one worker and the next."""
    script = tmp_path / "script"
    script.write_text("ok\nnot read\n")
    engine = make(f"@{script}")

    assert transcribe(engine)[0].text
    script.write_text("raise:engine\n")
    with pytest.raises(EngineError):
        transcribe(engine)
    script.write_text("boot:fail")
    assert transcribe(engine)[0].text
    with pytest.raises(BootError):
        make(f"@{script}")


def test_wait_ends_when_the_file_says_something_else(tmp_path):
    """A test is never late for a job that runs: the engine reports until the test goes on."""
    script = tmp_path / "script"
    script.write_text("wait\n")
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            script.write_text("ok\n")

    transcript, reports = transcribe(make(f"@{script}", sleep=sleep))

    assert transcript.text
    assert reports == [0.0, 0.0, 0.0, 1.0, 2.0, 2.25]


@pytest.mark.parametrize("script", ["sticky:3", "poison:5"])
def test_a_broken_engine_stays_broken(script):
    """After so many seconds of audio, or a recording of that length."""
    engine = make(script)
    assert transcribe(engine)[0].text
    with pytest.raises(EngineError, match="broken for good"):
        transcribe(engine, np.zeros(5 * SAMPLE_RATE, np.int16))
    with pytest.raises(EngineError, match="broken for good"):
        transcribe(engine)


@pytest.mark.parametrize(("script", "windows"), [("windows,ok", 4), ("windows,sticky:3", 3)])
def test_windows_are_decoded_one_a_step(script, windows):
    """In the order of their arrival; one that is withdrawn is not."""
    engine = create(engine_options(script))
    handles = [engine.submit(AudioWindow(AUDIO[number:], OPTIONS, "de")) for number in range(5)]
    engine.withdraw(handles.pop(1))
    done = []
    for _ in range(windows):
        done += engine.step()

    assert [handle for handle, _ in done] == handles[:windows]
    assert done[0][1].segments[0].text.startswith(" scripted 2.25 s sum ")
    assert engine.pending == 4 - windows
    if engine.pending:
        with pytest.raises(EngineError, match="broken for good"):
            engine.step()


def test_fewer_windows_at_once():
    """Down to one."""
    engine = create(dataclasses.replace(engine_options("windows,ok"), batch_size=3))

    assert (engine.capacity, engine.shrink(), engine.capacity, engine.shrink()) == (3, True, 1, False)


def test_slow_lets_time_pass_in_small_steps():
    """A test has the time to look, and sees progress."""
    slept = []

    _, reports = transcribe(make("slow:0.5", sleep=slept.append))

    assert sum(slept) == pytest.approx(0.5 * 2.2)
    assert reports[:3] == [0.1, 0.2, 0.3]
    assert reports == sorted(reports)
    assert reports[-1] == 2.25


def test_leak_keeps_memory():
    """More with each call."""
    engine = make("leak:3")
    transcribe(engine)
    transcribe(engine)

    assert sum(block.nbytes for block in engine._leaked) == 2 * 3 * 1024 * 1024


def test_a_failing_boot_is_a_boot_error():
    """As when a model is missing."""
    with pytest.raises(BootError, match="does not start"):
        make("boot:fail")


@pytest.mark.parametrize("script", ["okay", "slow", "slow:x", "exit:", "raise:fire", "ok, boot:oom", "hang:1"])
def test_a_misspelt_script_is_noticed_at_the_start(script):
    """Not in the middle of the story that it was to tell."""
    with pytest.raises(BootError, match="script has no action"):
        make(script)


RUN = """
import sys
import numpy as np
from pathlib import Path
from whisperd.engine.api import create
from whisperd.core.options import EngineOptions
engine = create(EngineOptions("scripted", "base", Path("models"), "auto", 1, sys.argv[1]))
print({name.partition(".")[0] for name in sys.modules} & {"torch", "whisper", "numba"}, flush=True)
engine.transcribe(np.zeros(16000, dtype=np.int16), None, lambda seconds: print(seconds, flush=True))
"""


def start(script):
    return subprocess.Popen([sys.executable, "-c", RUN, script], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("script", "status"),
    [
        pytest.param("exit:9", 9, id="exit"),
        pytest.param("kill", -signal.SIGKILL, id="kill"),
        pytest.param("boot:exit:7", 7, id="exit at boot"),
        pytest.param("boot:kill", -signal.SIGKILL, id="kill at boot"),
    ],
)
def test_a_process_can_be_made_to_end(script, status):
    """With the status or by the signal that the script names, and without a word."""
    process = start(script)
    output, _ = process.communicate(timeout=60)

    assert process.returncode == status
    assert output == ("" if script.startswith("boot:") else "set()\n")


def test_hang_ends_by_force_alone():
    """It says nothing more and ignores every polite signal. No torch was loaded to get there."""
    process = start("hang")
    assert process.stdout.readline() == "set()\n"
    deadline = time.monotonic() + 60
    polite = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    while not all(ignores(process.pid, number) for number in polite):
        assert time.monotonic() < deadline
    for number in polite:
        process.send_signal(number)
    alive = process.poll() is None
    process.send_signal(signal.SIGABRT)
    output, _ = process.communicate(timeout=60)

    assert alive
    assert process.returncode == -signal.SIGABRT
    assert output == ""


def ignores(pid, number):
    """Whether a process ignores a signal; see proc_pid_status(5)."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("SigIgn:")).split()[1]
    return bool(int(mask, 16) >> (number - 1) & 1)
