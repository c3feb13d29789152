"""Prepares a job: decodes the recording, separates its channels, finds speech and cuts it into windows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from whisperd.core.job import Phase
from whisperd.media.decode import decode
from whisperd.media.windows import everything, windows
from whisperd.spool.durable import failpoint
from whisperd.worker.failures import disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from whisperd.media.decode import Decoded
    from whisperd.media.vad import Detector
    from whisperd.protocol import Work

SAMPLES = "audio.s16le"
BLOCK = 1 << 20  # frames compared at once


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A recording that is ready for the engine.

    Attributes:
        decoded: the facts about the recording.
        samples: shape (samples,), 16 kHz mono, or (frames, channels) if channels are speakers; a memory map, so that
            memory does not grow with the length of the recording.
        windows: start and end in samples, as if the channels came one after the other.
    """

    decoded: Decoded
    samples: npt.NDArray[np.int16]
    windows: list[tuple[int, int]]

    def cut(self, start: int, end: int) -> npt.NDArray[np.int16]:
        """The samples of a window, not copied."""
        channel, start_there = divmod(start, len(self.samples)) if len(self.samples) else (0, 0)
        return tracks(self.samples)[channel][start_there : start_there + end - start]


def prepare(work: Work, detector: Detector | None, report: Callable[[Phase], None], *, whole: bool = False) -> Prepared:
    """Decode the recording into the job's directory and cut it into windows.

    Args:
        work: the job.
        detector: finds speech; not needed if voice detection is off, or with `whole`.
        report: the heartbeat; what it raises passes through.
        whole: each channel is one window, for an engine that takes whole recordings.

    Raises:
        JobError: the recording is at fault.
        SpoolFull: no room for its samples.
    """
    decoded, samples = load(work, report)
    vad = work.spec.vad

    def beat(_: float) -> None:
        report(Phase.DECODING)

    found = []
    for channel, track in enumerate(tracks(samples)):
        offset = channel * len(track)
        if whole:
            found.append((offset, offset + len(track)))
            continue
        if vad.enabled:
            assert detector is not None
            regions = detector.detect(track, vad, beat)
        else:
            regions = everything(track, beat)
        found += [(offset + window.start_sample, offset + window.end_sample) for window in windows(regions)]
    return Prepared(decoded, samples, found)


def load(work: Work, report: Callable[[Phase], None]) -> tuple[Decoded, npt.NDArray[np.int16]]:
    """Decode the recording into the job's directory; the samples are (frames, channels) if channels are speakers.

    Raises:
        JobError: the recording is at fault.
        SpoolFull: no room for its samples.
    """
    samples = work.directory / SAMPLES
    with disk_errors():
        report(Phase.DECODING)
        decoded = decode(work.source, samples, work.spec.media, lambda _: report(Phase.DECODING))
        _make_durable(work.source)
        failpoint("worker.after_samples")
        return decoded, separate(_map(samples), decoded.channels)


def separate(samples: npt.NDArray[np.int16], channels: int) -> npt.NDArray[np.int16]:
    """Shape interleaved samples as (frames, channels), or as (samples,) if all channels are equal: that is one speaker."""
    frames = samples[: len(samples) - len(samples) % channels].reshape(-1, channels)
    for begin in range(0, len(frames), BLOCK):
        block = frames[begin : begin + BLOCK]
        if (block != block[:, :1]).any():
            return frames
    return frames[:, 0]


def tracks(samples: npt.NDArray[np.int16]) -> list[npt.NDArray[np.int16]]:
    """The samples of each speaker, not copied."""
    return [samples] if samples.ndim == 1 else [samples[:, channel] for channel in range(samples.shape[1])]


def speakers(samples: npt.NDArray[np.int16], given: Sequence[str]) -> tuple[str, ...]:
    """The names of the speakers, as given or numbered; none if channels are not separate."""
    if samples.ndim == 1:
        return ()
    return tuple(
        [*given, *(f"Speaker {number + 1}" for number in range(len(given), samples.shape[1]))][: samples.shape[1]]
    )


def _map(path: Path) -> npt.NDArray[np.int16]:
    if path.stat().st_size < np.dtype(np.int16).itemsize:
        return np.zeros(0, np.int16)
    return np.memmap(path, dtype=np.int16, mode="r")


def _make_durable(source: Path) -> None:
    """Write the upload itself to disk: its sender may delete the other copy once the job is done, and scp never syncs."""
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
