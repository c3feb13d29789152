"""One run of ffmpeg: samples to disk, words to the log, and an end to it when it stalls or gives too much."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO

from whisperd.errors import EngineError, InputError, JobTimeout
from whisperd.speech.ffmpeg import BYTES_PER_SAMPLE, ENVIRONMENT, SAMPLE_RATE, Ffmpeg, confine, decode_command
from whisperd.speech.ffmpeg_log import FfmpegLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisperd.options import MediaOptions

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
        now = time.monotonic()
        if now >= self._due_at:
            self._due_at = now + BEAT_SECONDS
            self._report(seconds)


def _run(
    ffmpeg: Ffmpeg, recording: int, sink: BinaryIO, options: MediaOptions, beat: _Heartbeat, log: FfmpegLog
) -> tuple[int, int]:
    """Let ffmpeg decode; its exit status and how many bytes it gave."""
    os.lseek(recording, 0, os.SEEK_SET)  # `fd:` reads on from where the descriptor stands
    try:
        child = subprocess.Popen(
            decode_command(ffmpeg),
            stdin=recording,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
        )
    except OSError as error:
        raise _died(f"ffmpeg cannot be started: {error.strerror}") from error
    # It stays in this process group: whoever kills that kills both, and a Ctrl-C on a terminal reaches neither.
    with child:
        try:
            confine(child.pid, options.max_duration_seconds)
            count = _pump(child, sink, options, beat, log)
            status = child.wait(options.stall_seconds)
        except BaseException as error:
            child.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise _stalled(options.stall_seconds) from error
            raise
    return status, count


def _pump(
    child: subprocess.Popen[bytes], sink: BinaryIO, options: MediaOptions, beat: _Heartbeat, log: FfmpegLog
) -> int:
    """Move samples to disk and words to the log, both as they come, for a full pipe would stop ffmpeg."""
    count = 0
    life = (0, 0)
    stalls_at = time.monotonic() + options.stall_seconds
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
                else:
                    count += len(data)
                    if count > options.max_duration_seconds * BYTES_PER_SECOND:
                        raise _too_long(options.max_duration_seconds)
                    sink.write(data)
            # Where a long picture has a short sound track, ffmpeg reads for minutes and gives nothing.
            seen = (count, _bytes_read(child.pid))
            now = time.monotonic()
            if seen != life:
                life, stalls_at = seen, now + options.stall_seconds
            elif now >= stalls_at:
                raise _stalled(options.stall_seconds)
            beat(count / BYTES_PER_SECOND)
    log.finish()
    return count


def _bytes_read(pid: int) -> int:
    """What a process has read so far (proc(5), /proc/pid/io); 0 where the kernel does not tell."""
    try:
        with open(f"/proc/{pid}/io", "rb") as file:  # noqa: PTH123  not a file
            return int(file.readline().split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _too_long(limit_seconds: float) -> InputError:
    message = f"the recording is longer than {timedelta(seconds=int(limit_seconds))}"
    return _input_error("too_long", message, "split it, or raise `media.max_duration_seconds`")


def _stalled(seconds: float) -> JobTimeout:
    return JobTimeout(
        f"ffmpeg neither read nor wrote for {seconds:g} s",
        hint="is the disk that slow? then raise `media.stall_seconds`",
        stage=STAGE,
    )


def _died(message: str, hint: str = "") -> EngineError:
    return EngineError(message, hint=hint, code="ffmpeg_died", stage=STAGE)
