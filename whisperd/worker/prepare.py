"""Prepares a job: decodes the recording, separates its tracks and channels, finds speech, cuts it into windows, tells people apart."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from whisperd.core.errors import SpoolFull
from whisperd.core.job import Phase
from whisperd.media.decode import decode
from whisperd.media.windows import everything, parts, windows
from whisperd.spool.durable import failpoint, is_transient, remedy
from whisperd.worker.voices import name_people

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from whisperd.core.transcript import KnownVoices, Turn
    from whisperd.diarization.on_demand import DiarizerOnDemand
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
        sounds: of each sound track, shape (samples,), 16 kHz mono, or (frames, channels) if channels are speakers; memory
            maps, so that memory does not grow with the length of the recording.
        speakers: names of the channels of all tracks; none if there is only one.
        windows: start and end in samples, as if the channels came one after the other, each as long as the longest.
        parts: of each window, start and end in samples of the parts that pauses divide it into, likewise; none if windows
            are whole channels.
        turns: who speaks when in each channel; None: that was not asked for.
        names: of the people of each channel whose voice is known, by their numbers.
        voices: what the samples of known voices gave; None: there are none.
    """

    decoded: Decoded
    sounds: list[npt.NDArray[np.int16]]
    speakers: tuple[str, ...]
    windows: list[tuple[int, int]]
    parts: list[tuple[tuple[int, int], ...]]
    turns: list[list[Turn]] | None = None
    names: Sequence[dict[int, str]] = ()
    voices: KnownVoices | None = None

    @property
    def channels(self) -> list[npt.NDArray[np.int16]]:
        """The samples of each channel of each track, not copied."""
        return channels(self.sounds)

    @property
    def total(self) -> int:
        """Number of samples of all channels, each as long as the longest."""
        every = self.channels
        return len(every) * _length(every)

    def cut(self, start: int, end: int) -> npt.NDArray[np.int16]:
        """The samples of a window, not copied; a channel that is shorter than others is silent behind its end."""
        every = self.channels
        channel, start_there = divmod(start, _length(every)) if _length(every) else (0, 0)
        found = every[channel][start_there : start_there + end - start]
        missing = min(end, (channel + 1) * _length(every)) - start - len(found)
        return np.pad(found, (0, missing)) if missing > 0 else found


def prepare(
    work: Work,
    detector: Detector | None,
    diarizer: DiarizerOnDemand | None,
    report: Callable[[Phase], None],
    *,
    whole: bool = False,
) -> Prepared:
    """Decode the recording into the job's directory, cut it into windows and find who speaks when.

    Args:
        work: the job.
        detector: finds speech; not needed if voice detection is off, or with `whole`.
        diarizer: tells people apart; not needed if that is off.
        report: the heartbeat; what it raises passes through.
        whole: each channel is one window, for an engine that takes whole recordings.

    Raises:
        JobError: the recording is at fault.
        SpoolFull: no room for its samples.
    """
    decoded, sounds, names = load(work, report)
    every = channels(sounds)
    length = _length(every)
    vad = work.spec.vad

    def beat(_: float) -> None:
        report(Phase.DECODING)

    found: list[tuple[int, int]] = []
    divided: list[tuple[tuple[int, int], ...]] = []
    for number, channel in enumerate(every):
        offset = number * length
        if whole:
            found.append((offset, offset + len(channel)))
            continue
        if vad.enabled:
            assert detector is not None
            regions = detector.detect(channel, vad, beat)
        else:
            regions = everything(channel, beat)
        for window in windows(regions):
            found.append((offset + window.start_sample, offset + window.end_sample))
            divided.append(tuple((offset + start, offset + end) for start, end in parts(window, channel)))
    separate_speakers = speakers(sounds, names, work.spec.media.speakers)
    if not work.spec.diarization.enabled:
        return Prepared(decoded, sounds, separate_speakers, found, divided)
    assert diarizer is not None
    people = [diarizer.get().diarize(channel, work.spec.diarization, beat) for channel in every]
    with disk_errors():
        voices, known = name_people(work, every, people, diarizer, beat)
    turns = [each.turns for each in people]
    return Prepared(decoded, sounds, separate_speakers, found, divided, turns, known, voices)


def load(work: Work, report: Callable[[Phase], None]) -> tuple[Decoded, list[npt.NDArray[np.int16]], list[str]]:
    """Decode the recording into the job's directory; returns the facts, and samples and name of each of its tracks.

    Samples are (frames, channels) if channels are speakers. A track that is the same as one before is left out: some
    recorders write the same sound to each track.

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
        sounds: list[npt.NDArray[np.int16]] = []
        names: list[str] = []
        written, at = _map(samples), 0
        for track in decoded.tracks:
            sound = separate(written[at : at + track.samples * track.channels], track.channels)
            at += track.samples * track.channels
            if not any(same(sound, other) for other in sounds):
                sounds.append(sound)
                names.append(track.name)
        return decoded, sounds, names


def separate(samples: npt.NDArray[np.int16], count: int) -> npt.NDArray[np.int16]:
    """Shape interleaved samples as (frames, channels), or as (samples,) if all channels are equal: that is one speaker."""
    frames = samples[: len(samples) - len(samples) % count].reshape(-1, count)
    for begin in range(0, len(frames), BLOCK):
        block = frames[begin : begin + BLOCK]
        if (block != block[:, :1]).any():
            return frames
    return frames[:, 0]


def same(one: npt.NDArray[np.int16], other: npt.NDArray[np.int16]) -> bool:
    """Whether two tracks have the same samples."""
    if one.shape != other.shape:
        return False
    return all(
        np.array_equal(one[begin : begin + BLOCK], other[begin : begin + BLOCK]) for begin in range(0, len(one), BLOCK)
    )


def channels(sounds: Sequence[npt.NDArray[np.int16]]) -> list[npt.NDArray[np.int16]]:
    """The samples of each channel of each track, not copied."""
    return [
        channel
        for sound in sounds
        for channel in ([sound] if sound.ndim == 1 else [sound[:, number] for number in range(sound.shape[1])])
    ]


def speakers(sounds: Sequence[npt.NDArray[np.int16]], names: Sequence[str], given: Sequence[str]) -> tuple[str, ...]:
    """The names of the channels as given, else those of their tracks, else numbered; none if there is only one channel."""
    count = len(channels(sounds))
    if count == 1 and sounds[0].ndim == 1:
        return ()
    if len(sounds) == 1:
        own = [f"Speaker {number + 1}" for number in range(count)]
    else:
        own = []
        for sound, name in zip(sounds, names, strict=True):
            own += [name] if sound.ndim == 1 else [f"{name}, channel {number + 1}" for number in range(sound.shape[1])]
    return tuple([*given, *own[len(given) :]][:count])


def _length(every: Sequence[npt.NDArray[np.int16]]) -> int:
    return max(map(len, every))


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise `SpoolFull` for a full disk or a job's directory that was taken away, which are the fault of no job.

    Raises:
        SpoolFull: the job costs no attempt.
    """
    try:
        yield
    except OSError as error:
        if is_transient(error) or isinstance(error, FileNotFoundError):
            raise SpoolFull(f"cannot read or write: {error.strerror}", hint=remedy(error)) from error
        raise


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
