"""Recordings of known voices for tests of diarization: people who take turns, and who spoke when."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from pytest_audioeval.samples.registry import SampleRegistry

import whisperd
from whisperd.core.errors import BootError
from whisperd.engine.weights.speakers import verify_speakers

RATE = 16_000
PCM = ("-f", "s16le", "-ac", "1", "-ar", str(RATE))
KENNEDY = Path(whisperd.__file__).parent / "samples/jfk.ogg"


def weights_or_skip():
    """The weights of diarization; a test is skipped where they are not installed."""
    try:
        return verify_speakers(Path("/nonexistent"))
    except BootError as error:
        pytest.skip(f"{error.message}: {error.hint}")


def ffmpeg(*arguments, given=b""):
    """What ffmpeg writes to standard output."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *arguments, "-"]
    return subprocess.run(command, input=given, capture_output=True, check=True).stdout


def kennedy(start, end):
    """A part of Kennedy's sentence, by seconds; its clauses are at 0-2.2, 3.2-4.4, 5.2-7.6 and 8.1-11."""
    samples = np.frombuffer(ffmpeg("-i", KENNEDY, *PCM), np.int16)
    return samples[int(start * RATE) : int(end * RATE)]


def by_telephone(samples):
    """The same by a telephone that sends the mu-law of G.711."""
    band = ("-af", "aresample=8000,highpass=f=300,lowpass=f=3400", "-ar", "8000", "-c:a", "pcm_mulaw", "-f", "wav")
    sent = ffmpeg(*PCM, "-i", "-", *band, given=samples.tobytes())
    return np.frombuffer(ffmpeg("-i", "-", *PCM, given=sent), np.int16)


def clip(language, name):
    """What another voice says."""
    (found,) = (each for each in SampleRegistry().all() if (each.lang, each.name) == (language, name))
    return (found.audio_numpy() * 32767).astype(np.int16)


def in_turn(*parts, pause_seconds=0.4):
    """Join `(name, samples)` with pauses; returns the samples, and start, end and name of each turn."""
    pause = np.zeros(round(pause_seconds * RATE), np.int16)
    pieces, turns, at = [], [], 0
    for name, samples in parts:
        pieces += [samples, pause]
        turns.append((at / RATE, (at + len(samples)) / RATE, name))
        at += len(samples) + len(pause)
    return np.concatenate(pieces), turns
