"""Finds speech in recordings of any length with the network of silero-vad.

Of the package silero-vad only the weights are used: importing it would set torch to one thread for the whole process.
"""

from __future__ import annotations

import itertools
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from whisperd.core.errors import BootError
from whisperd.media.ffmpeg import SAMPLE_RATE
from whisperd.media.silero import Silero
from whisperd.media.windows import FRAME_SAMPLES, MAX_SECONDS, PIECE_FRAMES, Region, UncutFrames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy.typing as npt

    from whisperd.core.options import VadOptions

CONTEXT_SAMPLES = 64  # the network sees these before each frame
EXIT_MARGIN, LEAST_EXIT = 0.15, 0.01  # speech ends below the threshold minus this; as silero-vad has it


class Detector:
    """The loaded network. It keeps no state between calls, so any number of threads may share one.

    It computes on the calling thread and, if torch has been given more threads there, on these.

    Raises:
        BootError: the weights are missing or cannot be loaded.
    """

    def __init__(self) -> None:
        path = _weights()
        try:
            self._network = Silero(path)
        except (OSError, ValueError) as error:
            raise BootError(f"{path} cannot be loaded: {error}", hint=_REMEDY) from error

    def detect(
        self,
        audio: npt.NDArray[np.int16],
        options: VadOptions,
        report: Callable[[float], None],
        *,
        max_seconds: float = MAX_SECONDS,
    ) -> Iterator[Region]:
        """Find speech, and yield each region as soon as it is certain.

        Args:
            audio: shape (samples,), 16 kHz mono; may be a memory map, it is read piece by piece.
            options: what counts as speech.
            report: called every 8 s of audio with the seconds read so far; what it raises passes through.
            max_seconds: a region that would be longer is cut where speech is least likely.
        """
        return find_speech(self.probabilities(audio, report), len(audio), options, max_seconds=max_seconds)

    def regions(
        self,
        audio: npt.NDArray[np.int16],
        options: VadOptions,
        report: Callable[[float], None],
        *,
        max_seconds: float = MAX_SECONDS,
    ) -> list[Region]:
        """Collect all that `detect` finds."""
        return list(self.detect(audio, options, report, max_seconds=max_seconds))

    def probabilities(
        self, audio: npt.NDArray[np.int16], report: Callable[[float], None]
    ) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the probability of speech in each frame of 32 ms, in pieces of up to `PIECE_FRAMES`."""
        state = self._network.start()
        context = np.zeros(CONTEXT_SAMPLES, dtype=np.float32)
        for first in range(0, len(audio), PIECE_FRAMES * FRAME_SAMPLES):
            samples = audio[first : first + PIECE_FRAMES * FRAME_SAMPLES].astype(np.float32) / 32768
            whole = np.concatenate([context, samples, np.zeros(-len(samples) % FRAME_SAMPLES, dtype=np.float32)])
            frames = np.lib.stride_tricks.sliding_window_view(whole, CONTEXT_SAMPLES + FRAME_SAMPLES)[::FRAME_SAMPLES]
            probabilities, state = self._network(torch.from_numpy(np.array(frames)), state)
            context = whole[-CONTEXT_SAMPLES:]
            yield probabilities.numpy()
            report((first + len(samples)) / SAMPLE_RATE)


def find_speech(
    probabilities: Iterable[npt.NDArray[np.float32]],
    total_samples: int,
    options: VadOptions,
    *,
    max_seconds: float = MAX_SECONDS,
) -> Iterator[Region]:
    """Turn probabilities into regions as silero-vad's `get_speech_timestamps_from_probs` does, but without waiting for the end.

    Args:
        probabilities: of each frame, in pieces of any size.
        total_samples: of the audio; no region goes beyond.
        options: what counts as speech.
        max_seconds: a region that would be longer is cut where speech is least likely, the parts touching.

    Raises:
        ValueError: the margins alone are longer than that.
    """
    pad = _samples(options.speech_pad_seconds)
    longest = (_samples(max_seconds) - 2 * pad) // FRAME_SAMPLES
    if longest < 1:
        raise ValueError(f"speech_pad_seconds {options.speech_pad_seconds} leaves no room in {max_seconds} s")
    start = end = None
    for next_start, next_end in _runs(probabilities, total_samples, options, longest):
        if start is None or end is None:
            start = max(0, next_start - pad)
        else:
            margin = min(pad, (next_start - end) // 2)  # close neighbours share the pause between them
            yield Region(start, end + margin)
            start = next_start - margin
        end = next_end
    if start is not None and end is not None:
        yield Region(start, min(total_samples, end + pad))


def _runs(
    probabilities: Iterable[npt.NDArray[np.float32]], total_samples: int, options: VadOptions, longest: int
) -> Iterator[tuple[int, int]]:
    """Yield speech without margins as `(first sample, first sample after)`; it begins above one threshold and ends below another."""
    leave = max(options.threshold - EXIT_MARGIN, LEAST_EXIT)
    least_silence, least_speech = _samples(options.min_silence_seconds), _samples(options.min_speech_seconds)
    speech: UncutFrames | None = None
    silent_from: int | None = None
    for frame, probability in enumerate(itertools.chain.from_iterable(piece.tolist() for piece in probabilities)):
        if probability >= options.threshold:
            speech = speech or UncutFrames(frame, longest)
            silent_from = None
        if speech is None:
            continue
        speech.activity.append(probability)
        if probability < leave and silent_from is None:
            silent_from = frame
        if silent_from is None:
            yield from _in_samples(speech.cut(ended=False))
        elif probability < leave and (frame - silent_from) * FRAME_SAMPLES >= least_silence:
            yield from _end(speech, silent_from * FRAME_SAMPLES, least_speech)
            speech = silent_from = None
    if speech is not None:
        yield from _end(speech, total_samples, least_speech)


def _end(speech: UncutFrames, end: int, least_speech: int) -> Iterator[tuple[int, int]]:
    if end - speech.start * FRAME_SAMPLES > least_speech:
        yield from _in_samples(speech.cut(-(-end // FRAME_SAMPLES) - speech.start, ended=True))
        yield speech.start * FRAME_SAMPLES, end


def _in_samples(parts: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    return ((first * FRAME_SAMPLES, after * FRAME_SAMPLES) for first, after in parts)


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


_REMEDY = "`pip install --force-reinstall 'silero-vad>=6.2.3'`"


def _weights() -> Path:
    try:
        distribution = metadata.distribution("silero-vad")
    except metadata.PackageNotFoundError:
        raise BootError("the package silero-vad, which finds speech, is not installed", hint=_REMEDY) from None
    path = Path(str(distribution.locate_file("silero_vad/data/silero_vad_16k_sequence.onnx")))
    if not path.is_file():
        raise BootError(f"silero-vad {distribution.version} has no {path}", hint=_REMEDY)
    return path
