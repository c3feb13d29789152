"""Makers of recordings for tests: plain Python for WAV, the ffmpeg of imageio-ffmpeg for the rest."""

import array
import functools
import itertools
import math
import random
import re
import shutil
import subprocess
import wave

import imageio_ffmpeg
import pytest

RATE = 16_000
ONE_TONE = ((1.0, 0), (1.0, 440), (1.0, 0))  # (seconds, Hz) each; 0 Hz is silence


def wav(path, parts=ONE_TONE, *, rate=RATE, channels=1):
    """Write a 16-bit WAV: silence and tones, one after the other."""
    frames = array.array("h")
    for seconds, hertz in parts:
        period = [
            round(8000 * math.sin(2 * math.pi * hertz * n / rate)) for n in range(rate)
        ]  # whole Hz: repeats each second
        whole, rest = divmod(round(seconds * rate), rate)
        frames.extend(array.array("h", period) * whole)
        frames.extend(array.array("h", period[:rest]))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(
            array.array("h", itertools.chain.from_iterable(zip(*[frames] * channels, strict=True))).tobytes()
        )
    return path


def long_wav(path, seconds, *, rate=8000):
    """Write hours of 8-bit hum in no time."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(rate)
        for _ in range(seconds):
            file.writeframesraw(bytes(120 + n % 16 for n in range(rate)))
    return path


def encode(path, *arguments):
    """Let ffmpeg write a file; a test is skipped where this ffmpeg lacks the encoder."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-y", "-v", "error", *map(str, arguments), str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if lacking := re.search(r"Unknown encoder '\S+'|Requested output format '\S+' is not", ran.stderr):
        pytest.skip(lacking[0])
    assert ran.returncode == 0, ran.stderr
    return path


def speech(path, text, language="en"):
    """Write synthetic speech with espeak-ng; a test is skipped where it is not installed."""
    espeak = shutil.which("espeak-ng")
    if espeak is None:
        pytest.skip("espeak-ng is not installed")
    subprocess.run([espeak, "-v", language, "-w", str(path), text], check=True)
    return path


def cut(path, source, part):
    """Write the first part of a file: an upload that was broken off."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    return path


def scrambled(path, source, start=0.5, length=0.02, seed=1):
    """Write a file with some bytes in it overwritten by noise: a bad sector."""
    data = bytearray(source.read_bytes())
    first, count = int(len(data) * start), int(len(data) * length)
    data[first : first + count] = random.Random(seed).randbytes(count)
    path.write_bytes(data)
    return path


def noise(path, size=100_000, seed=1):
    """Write bytes that mean nothing."""
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


def loud_spans(path, *, step_seconds=0.01, threshold=800, bridge_seconds=0.05):
    """Where raw 16 kHz PCM is loud: `[(start, end), ...]` in seconds; holes shorter than `bridge_seconds` do not count."""
    samples = array.array("h", path.read_bytes())
    step = int(RATE * step_seconds)
    spans = []
    for at in range(0, len(samples), step):
        if max(map(abs, samples[at : at + step])) < threshold:
            continue
        start, end = at / RATE, min(at + step, len(samples)) / RATE
        if spans and start - spans[-1][1] < bridge_seconds:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


@functools.cache
def has_protocol(ffmpeg, name):
    """Whether an ffmpeg reads a protocol."""
    listed = subprocess.run([ffmpeg, "-v", "error", "-protocols"], capture_output=True, text=True, check=True)
    return re.search(rf"^\s*{name}\s*$", listed.stdout, re.MULTILINE) is not None
