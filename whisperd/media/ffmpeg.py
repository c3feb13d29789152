"""ffmpeg: finds the binary, runs it on one recording within limits, and reads its messages.

There is no ffprobe beside the ffmpeg of imageio-ffmpeg, so all facts about a recording come from the messages of the
ffmpeg that decodes it. Each line has its level (`-loglevel level+info`). Titles and comments of the recording appear
among them: an uploader who forges a line there misleads whisperd about that recording and about nothing else.

This module imports nothing heavy, because `whisperd check` uses it too.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
import re
import resource
import selectors
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from whisperd.core.display import printable
from whisperd.core.errors import BootError, EngineError, InputError, JobTimeout, NoResources
from whisperd.core.options import CHANNELS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from whisperd.core.options import MediaOptions

SAMPLE_RATE = 16_000
BYTES_PER_SAMPLE = 2
BYTES_PER_SECOND = SAMPLE_RATE * BYTES_PER_SAMPLE

# Not inherited: proxies, FFREPORT (which writes files) and LD_PRELOAD. LC_ALL: the messages are parsed, so they are English.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "AV_LOG_FORCE_NOCOLOR": "1"}

# Containers of sound that ffmpeg detects by content and that hold all of their data themselves. Nothing else is opened:
# playlists and scripts (hls, dash, concat, sdp, imf, ...) name other files and hosts, mlv looks for files beside its own,
# image2, lavfi and the devices read no file at all, and text and pictures have no sound.
DEMUXERS = (
    "aac,ac3,ac4,aiff,amr,amrnb,amrwb,ape,asf,asf_o,au,avi,caf,codec2,dhav,dsf,dss,dts,dtshd,dv,eac3,flac,flv,gsm,gxf,iamf,"
    "iff,ilbc,ircam,ivr,kux,lc3,live_flv,loas,lvf,matroska,mlp,mmf,mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,mxg,nistsphere,nsv,nut,"
    "nuv,ogg,oma,osq,pva,pvf,qcp,rka,rm,sbc,shn,sox,spdif,tak,truehd,tta,ty,voc,vqf,w64,wav,webm,wsd,wtv,wv,wve,xwma"
)

# 1. 16 kHz mono first: silence is inserted as one block of memory, which for 48 kHz stereo would be 16 times as large.
# 2. Log the time of the first sound (`print` of ffmpeg-utils(1), EXPRESSION EVALUATION), once.
# 3. Silence in every gap of the timestamps, and from the start of the container to the first sound, so that times in the
#    transcript are those that a player shows.
# 4. Channels that are speakers stay separate, interleaved; then step 1 keeps the number of channels.
FILTERS = (
    f"aformat=sample_fmts=s16:sample_rates={SAMPLE_RATE}{{layout}},"
    "asetpts='PTS+0*if(eq(N,0),print(T,32))',"
    "aresample=async=1:first_pts=0"
)

MEMORY_BYTES = 1 << 30  # an 8K video takes 0.2 GB to look at, an hour of silence 0.25 GB to put in
OPEN_FILES = 16  # needs about 6
SPARE_CPU_SECONDS = 60
PROBE_SECONDS = 30

STAGE = "decoding"
CHUNK_BYTES = 1 << 18
BEAT_SECONDS = 0.5
LONGEST_LINE = 4096  # bytes; the rest of a line is dropped
LONGEST_TEXT = 160  # characters of a recording's own words in a message
KBITS_PER_CHANNEL = 256  # a second of 16 kHz in 16 bits

_LINE = re.compile(r"(?:\[[^\]]* @ \w+\] )*\[(?P<level>[a-z]+)\] (?P<text>.*)")
_SELF = re.compile(r"^(?:file:/proc/self/fd/0|fd:)(?:: )?")
_INPUT = re.compile(r"Input #0, (.+?), from ")
_DURATION = re.compile(r"  Duration: (\d{1,9}):(\d\d):(\d\d\.\d{1,9})")
_STREAM = re.compile(r" +Stream #0:(\d{1,9})(?:\[\w+\])?(?:\(([\w-]{1,35})\))?\S*: (Audio|Video): (.*)")
_OTHER_PART = re.compile(r" +(?:Stream|Chapter|Program)\b")  # of the banner, which has metadata of its own
_TITLE = re.compile(r" +(?:title|name) +: (.*)")  # `name` in MP4
_NO_CHANNELS = re.compile(r"\b0 channels\b")
_NO_LANGUAGE = {"", "und", "mis", "mul", "zxx"}  # ISO 639-2: undetermined, not coded, several, none
_SAMPLES = re.compile(r"Stream #0:0\S*: Audio: pcm_s16le\b.*, (\d{1,9}) kb/s")
_FIRST_SOUND = re.compile(r"-?\d{1,15}\.\d{1,9}")
_CUT_OFF = re.compile(r"partial file|ended prematurely|[Pp]acket corrupt|corrupt input packet|growing file")
_NO_DECODER = re.compile(r"no decoder found for: |Decoder \(codec .{1,80}\) not found for input stream")
_SAYS_NOTHING = re.compile(
    r"Error |Failed to set value|Conversion failed|Invalid data found|Not detecting|Format not on|End of file$"
    r"|Invalid argument$|Not yet implemented in FFmpeg|Duplicate element$"
    r"|Failed to find two consecutive|Failed to read frame size|Invalid frame size"  # it took the file for an MP3
)


@dataclass(frozen=True, slots=True)
class Ffmpeg:
    """A binary that runs, and its version."""

    path: Path
    version: str
    reads_descriptors: bool  # has the protocol `fd:` (since 6.0)


def find_ffmpeg(configured: Path | None) -> Path:
    """Find the ffmpeg to use: the configured one, else `ffmpeg` on PATH, else the one of imageio-ffmpeg.

    Raises:
        BootError: the configured one does not run, or none is found that does.
    """
    if configured is not None:
        path = Path(shutil.which(configured) or configured)
        inspect(path)
        return path
    on_path = shutil.which("ffmpeg")
    for candidate in (Path(on_path) if on_path else None, _carried()):
        if candidate is not None and _runs(candidate):
            return candidate
    raise BootError(
        f"no ffmpeg that runs: {f'{on_path} fails' if on_path else 'none on PATH'}, and imageio-ffmpeg carries none",
        hint="install ffmpeg, or `pip install imageio-ffmpeg`, or set `media.ffmpeg`",
    )


@functools.lru_cache
def inspect(path: Path) -> Ffmpeg:
    """Run a binary to learn its version and protocols; the answer is cached, because starting ffmpeg is slow.

    Raises:
        BootError: it does not run, or is not an ffmpeg.
        NoResources: the machine starts no process now.
    """
    hint = "install ffmpeg, or set `media.ffmpeg` to one that runs"
    try:
        ran = subprocess.run(
            [path, "-nostdin", "-protocols"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=ENVIRONMENT,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        if isinstance(error, OSError) and error.errno in NoResources.ERRNOS:
            raise NoResources(str(path), error) from error  # BootError would blame a good ffmpeg, and a good recording
        reason = error.strerror if isinstance(error, OSError) else f"no answer within {PROBE_SECONDS} s"
        raise BootError(f"{path} does not run: {reason}", hint=hint) from error
    version = re.match(rb"ffmpeg version (\S{1,80})", ran.stderr)
    if ran.returncode != 0 or version is None:
        raise BootError(f"{path} does not answer as ffmpeg does (exit status {ran.returncode})", hint=hint)
    has_fd = re.search(rb"^\s*fd\s*$", ran.stdout, re.MULTILINE) is not None
    return Ffmpeg(path, version[1].decode("ascii", "replace"), has_fd)


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


def look(ffmpeg: Ffmpeg, recording: int, options: MediaOptions, beat: Throttle) -> FfmpegRun:
    """Open a recording and decode nothing: what it contains is then in the log.

    Raises:
        JobTimeout, EngineError, NoResources: as `run`.
    """
    return _run(_input(ffmpeg), recording, io.BytesIO(), options, beat)


def run(
    ffmpeg: Ffmpeg,
    recording: int,
    sink: BinaryIO,
    options: MediaOptions,
    beat: Throttle,
    *,
    track: int = 0,
    clock: Sequence[int] = (0,),
) -> FfmpegRun:
    """Decode a sound track of a recording, an open descriptor that can seek, into `sink`.

    Raises:
        InputError: `too_long`.
        JobTimeout: ffmpeg neither read nor wrote for `stall_seconds`.
        EngineError: `ffmpeg_died`: it does not start.
        NoResources: the machine starts no process now.
        OSError: `sink` takes no more.
    """
    command = decode_command(ffmpeg, split=options.channels == "split", track=track, clock=clock)
    return _run(command, recording, sink, options, beat)


def _run(command: list[str], recording: int, sink: BinaryIO, options: MediaOptions, beat: Throttle) -> FfmpegRun:
    os.lseek(recording, 0, os.SEEK_SET)  # `fd:` would read from the current position
    try:
        child = subprocess.Popen(
            command,
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


def _input(ffmpeg: Ffmpeg) -> list[str]:
    """Build the first part of a command: ffmpeg, and the recording that it reads on standard input.

    The recording is an open descriptor that can seek, because an MP4 may have its index at the end. With `fd:` as the only
    protocol, nothing in a file can make ffmpeg open another file or host. Before version 6 there is only `file:`, and
    `DEMUXERS` alone protects against playlists (no demuxer in it opens files: mov does so only with `enable_drefs`).
    """
    protocol, source = ("fd", "fd:") if ffmpeg.reads_descriptors else ("file", "file:/proc/self/fd/0")
    return [
        *(str(ffmpeg.path), "-nostdin", "-nostats", "-hide_banner", "-loglevel", "level+info", "-filter_threads", "1"),
        *("-protocol_whitelist", protocol, "-format_whitelist", DEMUXERS),
        *("-threads", "1", "-discard:v", "nokey", "-sn", "-dn", "-i", source),
    ]


def decode_command(ffmpeg: Ffmpeg, *, split: bool = False, track: int = 0, clock: Sequence[int] = (0,)) -> list[str]:
    """Build the command that reads a recording on standard input and writes PCM (s16le, 16 kHz, mono) to standard output.

    Args:
        ffmpeg: the binary.
        split: it writes all channels, interleaved.
        track: number of the sound track, from 0.
        clock: numbers of the sound tracks from which times are counted; the same for all tracks of a recording, or their
            times would not fit together.
    """
    return [
        *_input(ffmpeg),
        *(
            "-map",
            f"0:a:{track}",
            "-af",
            FILTERS.format(layout="" if split else ":channel_layouts=mono"),
            "-c:a",
            "pcm_s16le",
            "-f",
            "s16le",
            "pipe:1",
        ),
        # A second output that discards the video undecoded: without it, MPEG-TS, MPEG-PS and Ogg would count time from the
        # first sound instead of the first picture. It has the sound too, for files without video. `V` leaves out covers,
        # of which a damaged one would end the whole run.
        *itertools.chain.from_iterable(("-map", f"0:a:{number}") for number in clock),
        *("-map", "0:V:0?", "-c", "copy", "-f", "null", "-"),
    ]


def confine(pid: int, max_duration_seconds: float) -> None:
    """Limit the resources of a running ffmpeg, whatever a hostile file makes it do.

    The parent sets the limits as soon as ffmpeg runs: code between fork and exec is not safe in a process with threads
    (subprocess, `preexec_fn`), and ffmpeg reads nothing of the file before its libraries are loaded. RLIMIT_DATA instead
    of RLIMIT_AS: libraries and mapped files cost nothing. The soft limit equals the hard one, because at the soft CPU
    limit ffmpeg ends as if it had succeeded.
    """
    for which, wanted in (
        (resource.RLIMIT_DATA, MEMORY_BYTES),
        (resource.RLIMIT_CPU, int(max_duration_seconds) + SPARE_CPU_SECONDS),  # as long as the recording plays
        (resource.RLIMIT_FSIZE, 0),  # it has pipes to write to, and no files
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.prlimit(pid, which)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.prlimit(pid, which, (value, value))


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


@dataclass(frozen=True, slots=True)
class SoundTrack:
    """A sound track as ffmpeg describes it.

    Attributes:
        about: codec, rate and channels.
        language: as the recording has it, usually three letters; empty: not stated.
        title: empty: not stated.
    """

    about: str
    language: str = ""
    title: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether the recording names the track and has nothing of it: ffmpeg would refuse to count time by it."""
        return _NO_CHANNELS.search(self.about) is not None


class FfmpegLog:
    """Reads ffmpeg's messages and keeps the facts; stays small however much a file makes ffmpeg complain.

    Attributes:
        said_anything: at least one line came from ffmpeg itself and not from, say, the dynamic linker.
        container: ffmpeg's name of the format; empty until the recording is open.
        sound: the sound tracks by number of their stream.
        video_tracks: how many; cover pictures do not count.
        channels: of the sound that comes out; 0 until that is known.
        first_sound_seconds: when the first sound comes, counted from the start of the container; None until it has come.
        errors: number of lines of level error or fatal.
        cause: the first of them that explains something.
        faults: the complaints that decide what is said about the recording.
    """

    def __init__(self) -> None:
        self.said_anything = False
        self.container = ""
        self.sound: dict[int, SoundTrack] = {}
        self.video_tracks = 0
        self.channels = 0
        self.first_sound_seconds: float | None = None
        self.errors = 0
        self.cause = ""
        self.faults: set[Fault] = set()
        self._stated_seconds: float | None = None
        self._is_guess = False
        self._section = (
            ""  # of the banner: `input`, `track` (about the last sound track), `output` (of the samples), or none
        )
        self._rest = b""

    @property
    def tracks(self) -> list[SoundTrack]:
        """The sound tracks in ffmpeg's order."""
        return [self.sound[number] for number in sorted(self.sound)]

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
        if self._section in {"input", "track"}:
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
            number, language, kind, about = found.groups()
            self._section = "track" if kind == "Audio" else "input"
            if kind == "Audio":
                known = "" if language in _NO_LANGUAGE else language or ""
                self.sound.pop(int(number), None)  # programs of MPEG-TS may share a stream, which comes again then
                self.sound[int(number)] = SoundTrack(_clean(about), known)
            elif not about.endswith("(attached pic)"):
                self.video_tracks += 1
        elif _OTHER_PART.match(text):
            self._section = "input"
        elif self._section == "track" and (found := _TITLE.match(text)):
            number, track = self.sound.popitem()
            self.sound[number] = replace(track, title=_clean(found[1]).strip())


def _runs(path: Path) -> bool:
    try:
        inspect(path)
    except BootError:
        return False
    return True


def _carried() -> Path | None:
    try:
        import imageio_ffmpeg  # noqa: PLC0415  not needed where the system has its own

        return Path(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


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


def _clean(text: str) -> str:
    """Text from a recording, shortened and made safe for terminals and status files."""
    return printable(text[:LONGEST_TEXT])[:LONGEST_TEXT]
