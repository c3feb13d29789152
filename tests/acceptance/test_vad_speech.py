"""Voice detection on natural speech in nine languages, with silence, noise and tones between."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from pytest_audioeval.samples.registry import SampleRegistry

import whisperd
from whisperd.core.options import VadOptions
from whisperd.media.vad import Detector
from whisperd.media.windows import FRAME_SAMPLES, everything, seconds_outside, windows

pytestmark = pytest.mark.model

RATE = 16_000
ROOT = Path(whisperd.__file__).parents[1]
OPTIONS = VadOptions(threshold=0.35, min_speech_seconds=0.1, min_silence_seconds=0.1, speech_pad_seconds=0.2)
LOUD = 0.05  # of the loudest frame of a clip: somebody is heard
CLIPS = sorted(SampleRegistry().all(), key=lambda sample: (sample.lang, sample.name))


def ignore(seconds):
    pass


@pytest.fixture(scope="module")
def detector():
    return Detector()


def samples_of(clip):
    return (clip.audio_numpy() * 32767).astype(np.int16)


def silence(seconds):
    return np.zeros(round(seconds * RATE), dtype=np.int16)


def loud(audio):
    """Whether somebody is heard, for each sample of the whole frames."""
    frames = audio[: len(audio) // FRAME_SAMPLES * FRAME_SAMPLES].astype(float).reshape(-1, FRAME_SAMPLES)
    energy = np.sqrt((frames**2).mean(axis=1))
    return (energy > LOUD * energy.max()).repeat(FRAME_SAMPLES)


def inside(spans, total):
    """Whether each sample is in a span."""
    marks = np.zeros(total, dtype=bool)
    for span in spans:
        marks[span.start_sample : span.end_sample] = True
    return marks


def conversation(seconds):
    """All clips in turn with pauses of 0.5 to 12 s: samples, and how many seconds of them are clips."""
    pauses = np.random.default_rng(4).uniform(0.5, 12.0, 1000)
    pieces, spoken, total = [], 0, 0
    for number, pause in enumerate(pauses):
        clip = samples_of(CLIPS[number % len(CLIPS)])
        pieces += [silence(pause), clip]
        spoken += len(clip)
        total += len(clip) + round(pause * RATE)
        if total > seconds * RATE:
            break
    return np.concatenate(pieces), spoken / RATE


def test_the_probabilities_are_those_of_onnxruntime(detector):
    """The same network, which silero-vad publishes for several programs, gives the same numbers, also where pieces meet."""
    audio, _ = conversation(60)
    path = metadata.distribution("silero-vad").locate_file("silero_vad/data/silero_vad_16k_sequence.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    samples = np.concatenate([np.zeros(64, np.float32), audio.astype(np.float32) / 32768])
    frames, nothing = sliding_window_view(samples, 576)[::512], np.zeros((1, 1, 128), np.float32)

    expected, *_ = session.run(["speech_probs", "hn", "cn"], {"input": frames, "h": nothing, "c": nothing})
    found = np.concatenate(list(detector.probabilities(audio, ignore)))

    assert np.ptp(expected) > 0.9
    np.testing.assert_allclose(found[: expected.size], expected.reshape(-1), atol=1e-3)


@pytest.mark.parametrize("clip", [pytest.param(clip, id=f"{clip.lang}-{clip.name}") for clip in CLIPS])
def test_speech_is_found(detector, clip):
    """What is heard of a clip between silences is inside regions, and its silence is not."""
    speech = samples_of(clip)
    audio = np.concatenate([silence(2), speech, silence(2)])

    found = detector.regions(audio, OPTIONS, ignore)

    heard = loud(audio)
    assert inside(found, len(audio))[: len(heard)][heard].mean() >= 0.99
    assert sum(region.end_sample - region.start_sample for region in found) <= len(speech) + 2 * 0.35 * RATE
    assert found[0].start_sample >= 1.7 * RATE
    assert found[-1].end_sample <= len(audio) - 1.4 * RATE


@pytest.mark.parametrize("signal_to_noise", [20, 10, 5], ids="{} dB".format)
def test_speech_is_found_in_noise(detector, signal_to_noise):
    """A fan in the room hides no sentence."""
    clean, _ = conversation(60)
    heard = loud(clean)
    noise = np.random.default_rng(0).normal(size=len(clean))
    noise *= np.sqrt((clean[: len(heard)][heard].astype(float) ** 2).mean()) / 10 ** (signal_to_noise / 20)
    audio = np.clip(clean + noise, -32768, 32767).astype(np.int16)

    found = detector.regions(audio, OPTIONS, ignore)

    assert inside(found, len(audio))[: len(heard)][heard].mean() >= 0.95


@pytest.mark.parametrize("gain", [0.3, 0.03], ids="{} of full scale".format)
def test_quiet_speech_is_found(detector, gain):
    """Somebody far from the microphone is heard too."""
    audio, _ = conversation(60)
    heard = loud(audio)

    found = detector.regions((audio * gain).astype(np.int16), OPTIONS, ignore)

    assert inside(found, len(audio))[: len(heard)][heard].mean() >= 0.95


def tone(frequencies):
    seconds = np.arange(30 * RATE) / RATE
    return sum(2500 * np.sin(2 * np.pi * frequency * seconds) for frequency in frequencies)


def melody():
    notes = np.random.default_rng(0).choice([262, 294, 330, 349, 392, 440], 60).repeat(RATE // 2)
    fading = np.tile(np.exp(-np.arange(RATE // 2) / 4000), 60)
    return 8000 * fading * np.sin(2 * np.pi * np.cumsum(notes) / RATE)


@pytest.mark.parametrize(
    "sound",
    [
        pytest.param(np.zeros(30 * RATE), id="digital silence"),
        pytest.param(np.full(30 * RATE, 5000.0), id="constant offset"),
        pytest.param(np.random.default_rng(0).normal(0, 100, 30 * RATE), id="faint white noise"),
        pytest.param(np.random.default_rng(0).normal(0, 5000, 30 * RATE), id="white noise"),
        pytest.param(tone([50]), id="mains hum"),
        pytest.param(tone([262, 330, 392]), id="chord"),
        pytest.param(melody(), id="melody"),
    ],
)
def test_what_is_not_speech_is_not_found(detector, sound):
    """Silence, noise and tones give no region, so the model is not asked to make up text for them."""
    audio = np.clip(sound, -32768, 32767).astype(np.int16)

    assert detector.regions(audio, OPTIONS, ignore) == []


def test_what_is_dropped_of_ten_minutes_is_the_silence(detector):
    """Of a long conversation with pauses, the seconds outside regions are those of the pauses, less the margins."""
    audio, spoken_seconds = conversation(600)

    found = detector.regions(audio, OPTIONS, ignore)

    total_seconds = len(audio) / RATE
    heard = loud(audio)
    gathered = list(windows(found))
    assert seconds_outside(found, len(audio)) == pytest.approx(total_seconds - spoken_seconds, rel=0.1)
    assert inside(found, len(audio))[: len(heard)][heard].mean() >= 0.99
    assert 0 < seconds_outside(gathered, len(audio)) < seconds_outside(found, len(audio))
    assert np.array_equal(inside(gathered, len(audio)) & inside(found, len(audio)), inside(found, len(audio)))


def test_without_voice_detection_cuts_avoid_the_speech(detector):
    """Windows of a conversation without voice detection end in its pauses."""
    audio, _ = conversation(300)
    cuts = [region.end_sample for region in everything(audio, ignore)][:-1]

    heard = loud(audio)

    assert len(cuts) >= 10
    assert not heard[cuts].any()


@pytest.fixture
def silero():
    """The package, whose import sets torch to one thread."""
    threads = torch.get_num_threads()
    import silero_vad  # noqa: PLC0415

    torch.set_num_threads(threads)
    return silero_vad


def test_the_regions_are_those_of_silero_itself(detector, silero):
    """The package's own detection, frame after frame, finds the same samples."""
    audio, _ = conversation(60)

    found = detector.regions(audio, OPTIONS, ignore)

    expected = silero.get_speech_timestamps(
        torch.from_numpy(audio.astype(np.float32) / 32768),
        silero.load_silero_vad(onnx=True),
        threshold=OPTIONS.threshold,
        min_speech_duration_ms=OPTIONS.min_speech_seconds * 1000,
        min_silence_duration_ms=OPTIONS.min_silence_seconds * 1000,
        speech_pad_ms=OPTIONS.speech_pad_seconds * 1000,
    )
    assert len(found) > 5
    assert [(region.start_sample, region.end_sample) for region in found] == [
        (each["start"], each["end"]) for each in expected
    ]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(tmp_path):
    """Half an hour, 58 MB of samples, needs hardly more memory of its own than a minute."""
    program = f"""
import re, sys, numpy
from whisperd.core.options import VadOptions
from whisperd.media.vad import Detector

def anonymous_megabytes(seconds=0):
    peak.append(int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024)

peak = []
detector = Detector()
for minutes in (1, 30):
    with open({str(tmp_path / "audio")!r}, "wb") as file:
        file.truncate(minutes * 60 * 16000 * 2)
    audio = numpy.memmap({str(tmp_path / "audio")!r}, dtype=numpy.int16, mode="r")
    peak.clear()
    detector.regions(audio, {OPTIONS!r}, anonymous_megabytes)
    print(max(peak))
"""

    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    minute, half_an_hour = map(float, ran.stdout.split())
    assert half_an_hour - minute < 12  # free places between torch's results


def test_onnxruntime_reports_to_nobody(tmp_path):
    """Its releases since 1.29 write an identifier of the device under the home directory, and send events to their maker.

    The package of faster-whisper may load it.
    """
    unmarked = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}  # a variable of a CI system would switch it off too
    path = metadata.distribution("silero-vad").locate_file("silero_vad/data/silero_vad_16k_sequence.onnx")
    program = f"import whisperd, onnxruntime; onnxruntime.InferenceSession({str(path)!r})"

    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=unmarked, check=True)

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
