"""Runs ffmpeg on one recording: samples go to disk, its messages become facts, and it is ended if it stalls or gives too much.

There is no ffprobe beside the ffmpeg of imageio-ffmpeg, so all facts about a recording come from the messages of the
ffmpeg that decodes it. Each line has its level (`-loglevel level+info`). Titles and comments of the recording appear
among them: an uploader who forges a line there misleads whisperd about that recording and about nothing else.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, BinaryIO

from whisperd.core.display import printable
from whisperd.core.errors import EngineError, InputError, JobTimeout, NoResources
from whisperd.core.options import CHANNELS_MAX
from whisperd.media.ffmpeg import BYTES_PER_SAMPLE, ENVIRONMENT, SAMPLE_RATE, Ffmpeg, confine, decode_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisperd.core.options import MediaOptions

STAGE = "decoding"
CHUNK_BYTES = 1 << 18
BEAT_SECONDS = 0.5
BYTES_PER_SECOND = SAMPLE_RATE * BYTES_PER_SAMPLE
LONGEST_LINE = 4096  # bytes; the rest of a line is dropped
LONGEST_TEXT = 160  # characters of a recording's own words in a message

_LINE = re.compile(r"(?:\[[^\]]* @ \w+\] )*\[(?P<level>[a-z]+)\] (?P<text>.*)")
_SELF = re.compile(r"^(?:file:/proc/self/fd/0|fd:)(?:: )?")
_INPUT = re.compile(r"Input #0, (.+?), from ")
_DURATION = re.compile(r"  Duration: (\d{1,9}):(\d\d):(\d\d\.\d{1,9})")
_STREAM = re.compile(r" +Stream #0:\d+\S*: (Audio|Video): (.*)")
_SAMPLES = re.compile(r"Stream #0:0\S*: Audio: pcm_s16le\b.*, (\d{1,9}) kb/s")
KBITS_PER_CHANNEL = 256  # a second of 16 kHz in 16 bits
_FIRST_SOUND = re.compile(r"-?\d{1,15}\.\d{1,9}")
_CUT_OFF = re.compile(r"partial file|ended prematurely|[Pp]acket corrupt|corrupt input packet|growing file")
_NO_DECODER = re.compile(r"no decoder found for: |Decoder \(codec .{1,80}\) not found for input stream")
_SAYS_NOTHING = re.compile(
    r"Error |Failed to set value|Conversion failed|Invalid data found|Not detecting|Format not on|End of file$"
    r"|Invalid argument$|Not yet implemented in FFmpeg|Duplicate element$"
    r"|Failed to find two consecutive|Failed to read frame size|Invalid frame size"  # it took the file for an MP3
)


class Throttle:
    """Passes reports on at most twice a second, however often it is called."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self._report = report
        self._due_at = 0.0

    def __call__(self, seconds: float) -> None:
        """Report, unless the last report was a moment ago."""
        now = time.monotonic()
        if now >= self._due_at:
            self._due_at = now + BEAT_SECONDS
            self._report(seconds)


@dataclass(frozen=True, slots=True)
class FfmpegRun:
    """How ffmpeg ended, how many bytes of samples it gave for each channel, and what it said."""

    status: int
    count: int
    log: FfmpegLog
    channels: int = 1


def run(ffmpeg: Ffmpeg, recording: int, sink: BinaryIO, options: MediaOptions, beat: Throttle) -> FfmpegRun:
    """Decode a recording, an open descriptor that can seek, into `sink`.

    Raises:
        InputError: `too_long`.
        JobTimeout: ffmpeg neither read nor wrote for `stall_seconds`.
        EngineError: `ffmpeg_died`: it does not start.
        NoResources: the machine starts no process now.
        OSError: `sink` takes no more.
    """
    os.lseek(recording, 0, os.SEEK_SET)  # `fd:` would read from the current position
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
            return FfmpegRun(child.wait(options.stall_seconds), count // channels, log, channels)
        except subprocess.TimeoutExpired as error:
            child.kill()
            raise _stalled(options.stall_seconds) from error
        except BaseException:
            child.kill()
            raise


def _pump(
    child: subprocess.Popen[bytes], sink: BinaryIO, options: MediaOptions, beat: Throttle
) -> tuple[int, FfmpegLog]:
    """Read samples and messages as they come, because a full pipe would stop ffmpeg; samples go to disk."""
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
            # Reading counts as life: of a long video with a short sound track nothing comes out for minutes.
            seen = (count, _bytes_read(child.pid))
            if seen != life:
                life, stalls_at = seen, time.monotonic() + options.stall_seconds
            elif time.monotonic() >= stalls_at:
                raise _stalled(options.stall_seconds)
            beat(count / BYTES_PER_SECOND / max(1, log.channels))
    log.finish()
    return count, log


def _bytes_read(pid: int) -> int:
    """Bytes that a process has read so far (proc(5), /proc/pid/io); 0 if the kernel does not say."""
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
    """Return the error for an ffmpeg that ended in a way that is not the fault of the recording."""
    return EngineError(message, hint=hint, code="ffmpeg_died", stage=STAGE)


class Fault(Enum):
    """Complaints of ffmpeg that decide what is said about a recording."""

    REFUSED = "refused"  # the format is none of those that may be opened
    CUT_OFF = "cut_off"  # something ends before the place where it should
    NO_DECODER = "no_decoder"  # ffmpeg knows the container but has no decoder for the sound in it
    INDEX_MISSING = "index_missing"  # an MP4 without its index, which is written last
    UNFILLABLE = "unfillable"  # a gap in the timestamps is too long to be filled with silence
    INTERRUPTED = "interrupted"  # ffmpeg was asked to stop by a signal


class FfmpegLog:
    """Reads ffmpeg's messages and keeps the facts; stays small however much a file makes ffmpeg complain.

    Attributes:
        said_anything: at least one line came from ffmpeg itself and not from, say, the dynamic linker.
        container: ffmpeg's name of the format; empty until the recording is open.
        audio: what the first sound track is; empty without one.
        audio_tracks, video_tracks: how many; cover pictures do not count.
        channels: of the sound that comes out; 0 until that is known.
        first_sound_seconds: when the first sound comes, counted from the start of the container; None until it has come.
        errors: number of lines of level error or fatal.
        cause: the first of them that explains something.
        faults: the complaints that decide what is said about the recording.
    """

    def __init__(self) -> None:
        self.said_anything = False
        self.container = ""
        self.audio = ""
        self.audio_tracks = 0
        self.video_tracks = 0
        self.channels = 0
        self.first_sound_seconds: float | None = None
        self.errors = 0
        self.cause = ""
        self.faults: set[Fault] = set()
        self._stated_seconds: float | None = None
        self._is_guess = False
        self._section = ""  # of the banner: `input`, `output` (of the samples), or neither
        self._rest = b""

    @property
    def promised_seconds(self) -> float | None:
        """The length that the header states; None if it states none or ffmpeg only estimated it."""
        return None if self._is_guess else self._stated_seconds

    def feed(self, data: bytes) -> None:
        """Take the next bytes, which need not be whole lines."""
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._read(line)
        self._rest = rest[:LONGEST_LINE]

    def finish(self) -> None:
        """Read the last line, which may have no end."""
        self._read(self._rest)
        self._rest = b""

    def _read(self, line: bytes) -> None:
        match = _LINE.match(line[:LONGEST_LINE].decode("utf-8", "replace"))
        if match is None:
            return
        self.said_anything = True
        level, text = match["level"], match["text"]
        if level in {"error", "fatal", "panic"}:
            self._read_error(text)
        if level in {"error", "warning"}:
            self._notice_fault(Fault.CUT_OFF, _CUT_OFF.search(text))
            self._is_guess |= text.startswith("Estimating duration")
        if level == "info":
            self._read_info(text)

    def _notice_fault(self, fault: Fault, found: object) -> None:
        if found:
            self.faults.add(fault)

    def _read_error(self, text: str) -> None:
        self.errors += 1
        self._notice_fault(Fault.REFUSED, text.startswith("Format not on whitelist"))
        self._notice_fault(Fault.INDEX_MISSING, text.startswith("moov atom not found"))
        self._notice_fault(Fault.NO_DECODER, _NO_DECODER.search(text))
        self._notice_fault(Fault.UNFILLABLE, text.startswith("Failed to compensate for timestamp delta"))
        said = _SELF.sub("", text).strip()
        if not self.cause and not _SAYS_NOTHING.match(said):
            self.cause = _clean(said)

    def _read_info(self, text: str) -> None:
        if self._section == "input":
            self._read_banner(text)
        elif text.startswith("Output #"):
            self._begin_output(text)
        elif self._section == "output" and (found := _SAMPLES.search(text)):
            self.channels = int(found[1]) // KBITS_PER_CHANNEL
            self._section = ""
        elif found := _INPUT.match(text):
            self.container = _clean(found[1])
            self._section = "input"
        elif text.startswith("Exiting normally, received signal"):
            self.faults.add(Fault.INTERRUPTED)
        elif self.first_sound_seconds is None and _FIRST_SOUND.fullmatch(text):
            self.first_sound_seconds = float(text)

    def _begin_output(self, text: str) -> None:
        self._section = "output" if text.startswith("Output #0, s16le") else ""

    def _read_banner(self, text: str) -> None:
        if text.startswith(("Stream mapping:", "Output #")):
            self._begin_output(text)
        elif self._stated_seconds is None and (found := _DURATION.match(text)):
            self._stated_seconds = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
        elif found := _STREAM.match(text):
            kind, about = found.groups()
            if kind == "Audio":
                self.audio_tracks += 1
                self.audio = self.audio or _clean(about)
            elif not about.endswith("(attached pic)"):
                self.video_tracks += 1


def _clean(text: str) -> str:
    """Text from a recording, shortened and made safe for terminals and status files."""
    return printable(text[:LONGEST_TEXT])[:LONGEST_TEXT]
