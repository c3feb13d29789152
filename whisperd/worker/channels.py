"""Recordings in which each channel is a speaker: apart for the model, together again by time."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from whisperd.core.transcript import Transcript

BLOCK = 1 << 20  # frames compared at once


def apart(samples: npt.NDArray[np.int16], channels: int) -> npt.NDArray[np.int16]:
    """Interleaved samples as (frames, channels); where all channels are the same, as (samples,): that is one speaker."""
    frames = samples[: len(samples) - len(samples) % channels].reshape(-1, channels)
    for begin in range(0, len(frames), BLOCK):
        block = frames[begin : begin + BLOCK]
        if (block != block[:, :1]).any():
            return frames
    return frames[:, 0]


def tracks(samples: npt.NDArray[np.int16]) -> list[npt.NDArray[np.int16]]:
    """The samples of each speaker."""
    return [samples] if samples.ndim == 1 else [samples[:, channel] for channel in range(samples.shape[1])]


def speakers(samples: npt.NDArray[np.int16], given: Sequence[str]) -> tuple[str, ...]:
    """What the speakers are called; none where nobody is told apart."""
    if samples.ndim == 1:
        return ()
    return tuple(
        [*given, *(f"Speaker {number + 1}" for number in range(len(given), samples.shape[1]))][: samples.shape[1]]
    )


def together(transcripts: Sequence[Transcript], names: Sequence[str]) -> Transcript:
    """One transcript of several that began at the same time, in the order in which they spoke; the language of most text."""
    segments = sorted(
        (
            dataclasses.replace(segment, speaker=name)
            for transcript, name in zip(transcripts, names, strict=True)
            for segment in transcript.segments
        ),
        key=lambda segment: segment.start,
    )
    most = max(transcripts, key=lambda transcript: len(transcript.text))
    text = "".join(segment.text for segment in segments)
    return dataclasses.replace(most, text=text, segments=tuple(segments))
