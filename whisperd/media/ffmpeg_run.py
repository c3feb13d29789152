"""One run of ffmpeg: samples to disk, words to the log, and an end to it when it stalls or gives too much."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO

from whisperd.core.errors import EngineError, InputError, JobTimeout, NoResources
from whisperd.core.options import CHANNELS_MAX
from whisperd.media.ffmpeg import BYTES_PER_SAMPLE, ENVIRONMENT, SAMPLE_RATE, Ffmpeg, confine, decode_command
from whisperd.media.ffmpeg_log import FfmpegLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisperd.core.options import MediaOptions

STAGE = "decoding"
CHUNK_BYTES = 1 << 18
BEAT_SECONDS = 0.5
BYTES_PER_SECOND = SAMPLE_RATE * BYTES_PER_SAMPLE


class Heartbeat:
    """Passes reports on, some a second and not some thousand."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self._report = report
        self._due_at = 0.0

    def __call__(self, seconds: float) -> None:
        """Report, if it is time again."""
        now = time.monotonic()
        if now >= self._due_at:
            self._due_at = now + BEAT_SECONDS
            self._report(seconds)


@dataclass(frozen=True, slots=True)
class Run:
    """How ffmpeg ended, how many bytes of samples it gave for each channel, and what it said."""

    status: int
    count: int
    log: FfmpegLog
    channels: int = 1


def run(ffmpeg: Ffmpeg, recording: int, sink: BinaryIO, options: MediaOptions, beat: Heartbeat) -> Run:
    """Decode a recording, an open descriptor that can seek, into `sink`.

    Raises:
        InputError: `too_long`.
        JobTimeout: ffmpeg neither read nor wrote for `stall_seconds`.
        EngineError: `ffmpeg_died`: it does not start.
        NoResources: the machine starts no process now.
        OSError: `sink` takes no more.
    """
    os.lseek(recording, 0, os.SEEK_SET)  # `fd:` reads on from where the descriptor stands
    try:
        child = subprocess.Popen(
            decode_command(ffmpeg, split=options.channels == "split"),
            stdin=recording,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
        )
    except OSError as error:
        if error.errno in NoResources.ERRNOS:
            raise NoResources("ffmpeg", error) from error
        raise died(f"ffmpeg cannot be started: {error.strerror}") from error
    # It stays in the worker's process group: who kills that kills ffmpeg too.
    with child:
        try:
            confine(child.pid, options.max_duration_seconds)
            count, log = _pump(child, sink, options, beat)
            channels = max(1, log.channels)
            return Run(child.wait(options.stall_seconds), count // channels, log, channels)
        except subprocess.TimeoutExpired as error:
            child.kill()
            raise _stalled(options.stall_seconds) from error
        except BaseException:
            child.kill()
            raise


def _pump(
    child: subprocess.Popen[bytes], sink: BinaryIO, options: MediaOptions, beat: Heartbeat
) -> tuple[int, FfmpegLog]:
    """Move samples to disk and words to the log, both as they come: a full pipe would stop ffmpeg."""
    most = options.max_duration_seconds * BYTES_PER_SECOND
    count, log = 0, FfmpegLog()
    life, stalls_at = (0, 0), time.monotonic() + options.stall_seconds
    with selectors.DefaultSelector() as selector:
        for pipe in (child.stdout, child.stderr):
            assert pipe is not None
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(min(BEAT_SECONDS, options.stall_seconds)):
                data = os.read(key.fd, CHUNK_BYTES)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is child.stderr:
                    log.feed(data)
                    if log.channels > CHANNELS_MAX:
                        raise _too_many(log.channels)
                else:
                    count += len(data)
                    if count > most * max(1, log.channels):
                        raise _too_long(options.max_duration_seconds)
                    sink.write(data)
            # Reading is life too: where a long picture has a short sound track, nothing comes out for minutes.
            seen = (count, _bytes_read(child.pid))
            if seen != life:
                life, stalls_at = seen, time.monotonic() + options.stall_seconds
            elif time.monotonic() >= stalls_at:
                raise _stalled(options.stall_seconds)
            beat(count / BYTES_PER_SECOND / max(1, log.channels))
    log.finish()
    return count, log


def _bytes_read(pid: int) -> int:
    """What a process has read so far (proc(5), /proc/pid/io); 0 where the kernel does not tell."""
    try:
        with open(f"/proc/{pid}/io", "rb") as file:
            return int(file.readline().split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _too_long(limit_seconds: float) -> InputError:
    message = f"the recording is longer than {timedelta(seconds=int(limit_seconds))}"
    return InputError(message, hint="split it, or raise `media.max_duration_seconds`", code="too_long", stage=STAGE)


def _too_many(channels: int) -> InputError:
    message = f"the recording has {channels} channels; up to {CHANNELS_MAX} can be told apart"
    return InputError(message, hint="use channels: mix", code="unsupported", stage=STAGE)


def _stalled(seconds: float) -> JobTimeout:
    return JobTimeout(
        f"ffmpeg neither read nor wrote for {seconds:g} s",
        hint="is the disk that slow? then raise `media.stall_seconds`",
        stage=STAGE,
    )


def died(message: str, hint: str = "") -> EngineError:
    """The error for an ffmpeg that ended as no recording makes it end."""
    return EngineError(message, hint=hint, code="ffmpeg_died", stage=STAGE)
