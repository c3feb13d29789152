"""`whisperd bench` with real processes."""

import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import yaml
from support.daemon import tone

from whisperd.bench.recordings import SAMPLE, SAMPLE_TEXT, ReferenceRecording
from whisperd.bench.systems import INSTRUCTION_SETS, Daemon, PeakMemory, Peer, missing, resident_bytes, tree
from whisperd.core.errors import WhisperdError
from whisperd.settings import config

ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def bench(settings, *arguments):
    command = [sys.executable, "-m", "whisperd", "bench", "--config", str(settings), "--json", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture
def quick(tmp_path):
    """A configuration for the scripted engine."""
    path = tmp_path / "whisperd.yaml"
    values = {"engine": "scripted", "intake": {"settle_seconds": 0.2}, "pool": {"threads": 1}}
    path.write_text(yaml.safe_dump(values))
    return path


def recording(path, text="beep"):
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".txt").write_text(text)
    return ReferenceRecording(tone(path), text, "en")


def test_the_daemon_is_measured_over_a_spool_of_its_own(quick, tmp_path):
    """Transcripts of all recordings in their order, their lengths, and memory of more than one process."""
    recordings = [recording(tmp_path / "set" / f"{name}.wav") for name in ("b", "a")]

    run = Daemon(config.load(quick)).run(recordings)

    assert run.durations == (1.0, 1.0)
    assert [bool(heard.text) for heard in run.heard] == [True, True]
    assert 0 < run.seconds < 30
    assert run.peak_bytes > 20 << 20


def test_a_recording_that_fails_ends_the_measurement(quick, tmp_path):
    """With the reason, rather than a figure that leaves it out."""
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")

    with pytest.raises(WhisperdError, match="failed on one of the recordings"):
        Daemon(config.load(quick)).run([ReferenceRecording(bad, "", None)])


def test_a_daemon_that_does_not_start_says_why(tmp_path):
    """In its own last line."""
    settings = config.load(root=tmp_path, model="no-such-model")

    with pytest.raises(WhisperdError, match="no-such-model"):
        Daemon(settings).run([recording(tmp_path / "a.wav")])


def test_the_command_writes_a_document(quick, tmp_path):
    """What is not here is named, with the reason."""
    recording(tmp_path / "set" / "a.wav")

    found = bench(quick, "--audio", str(tmp_path / "set"), "--rounds", "2", "--against", "whisper.cpp")

    system = found["systems"][0]
    assert (found["recordings"], found["rounds"], system["name"]) == (1, 2, "whisperd")
    assert system["speed"]["least"] <= system["speed"]["median"] <= system["speed"]["most"]
    assert found["machine"]["operations_per_second"]["fp32"] > 1e9
    if shutil.which("whisper-cli") is None and importlib.util.find_spec("pywhispercpp") is None:
        assert found["not_here"] == {
            "whisper.cpp": "not installed: pip install pywhispercpp, or put whisper-cli on PATH"
        }


def test_a_smaller_processor_can_be_measured_on_a_larger_one(quick, tmp_path):
    """All that the command starts uses the instructions that were allowed, and the document says which."""
    recording(tmp_path / "set" / "a.wav")
    command = [sys.executable, "-c", "import torch; print(torch.backends.cpu.get_cpu_capability())"]
    allowed = ONE_THREAD | INSTRUCTION_SETS["avx2"]
    used = subprocess.run(command, capture_output=True, text=True, env=allowed, check=True).stdout.strip()
    assert used == "AVX2"

    found = bench(quick, "--audio", str(tmp_path / "set"), "--rounds", "1", "--isa", "avx2")

    assert found["machine"]["processor"].endswith(", held to avx2")


def test_memory_is_that_of_the_whole_tree(wait_until):
    """A child counts with its parent, and what has gone counts nothing."""
    child = "x = b'x' * 50_000_000; input()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        with PeakMemory(process.pid) as memory:
            wait_until(lambda: memory.peak_bytes > 60_000_000, what="the child's memory")
        alone = resident_bytes(process.pid)
        process.communicate(b"\n")

    assert 0 < alone < 50_000_000
    assert tree(process.pid) == [process.pid]
    assert resident_bytes(process.pid) == 0


def test_whisper_cpp_is_run_by_its_command(tmp_path, monkeypatch):
    """With the model, the threads and the language of the configuration, on audio that it can read."""
    program = tmp_path / "whisper-cli"
    program.write_text('#!/bin/sh\nfor last; do :; done\ntest -f "$last" && echo " args $*"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    settings = config.load(root=tmp_path, models_directory=str(tmp_path), pool={"threads": 3})
    assert missing("whisper.cpp", settings) == f"no {tmp_path}/ggml-base.bin"
    (tmp_path / "ggml-base.bin").write_bytes(b"weights")
    assert missing("whisper.cpp", settings) == ""

    run = Peer("whisper.cpp", settings).run([recording(tmp_path / "a.wav")])

    assert f"args -m {tmp_path}/ggml-base.bin -t 3 -bs 1 -l auto -nt -np -f" in run.heard[0].text


def test_a_peer_that_dies_is_named(tmp_path):
    """Rather than waited for."""
    settings = config.load(root=tmp_path, model="no-such-model")

    with pytest.raises(WhisperdError, match="openai-whisper: no weights"):
        Peer("openai-whisper", settings).run([])


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_whisperd_beside_the_others_on_real_speech(tmp_path):
    """All that are installed hear the same words; speed, memory and the floor are there."""
    settings = tmp_path / "whisperd.yaml"
    settings.write_text(yaml.safe_dump({"model": "tiny.en", "pool": {"threads": 1}}))
    folder = tmp_path / "set" / "en"
    folder.mkdir(parents=True)
    with resources.as_file(resources.files("whisperd") / "samples" / SAMPLE) as source:
        shutil.copy(source, folder / SAMPLE)
    (folder / Path(SAMPLE).with_suffix(".txt")).write_text(SAMPLE_TEXT)
    names = ["openai-whisper", "faster-whisper"]

    found = bench(
        settings, "--audio", str(folder.parent), "--rounds", "1", "--language", "en", "--against", ",".join(names)
    )

    here = ["whisperd", *(name for name in names if name not in found["not_here"])]
    assert [system["name"] for system in found["systems"]] == here
    assert [system["wer"] for system in found["systems"]] == [0.0] * len(here)
    assert all(system["peak_bytes"] > 100 << 20 for system in found["systems"])
    assert found["floor_speed"] > found["systems"][0]["speed"]["median"]
