"""What ffmpeg says about a recording, read from its standard error.

There is no ffprobe beside the ffmpeg of imageio-ffmpeg, so the facts come from the banner. Every line is tagged with its
level (`-loglevel level+info`). Titles and comments in a recording appear in it too: whoever forges a line there lies
about his own recording and about nothing else.
"""

from __future__ import annotations

import re

from whisperd.core.display import printable

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


class FfmpegLog:
    """The facts so far; small, however much a file makes ffmpeg complain.

    Attributes:
        said_anything: at least one line came from ffmpeg itself and not from, say, the dynamic linker.
        container: ffmpeg's name of the format; empty until the recording is open.
        audio: what the first sound track is; empty without one.
        audio_tracks, video_tracks: how many; cover pictures do not count.
        channels: of the sound that comes out; 0 until that is known.
        promised_seconds: the length that the header states; None if it states none or ffmpeg only guessed it.
        first_sound_seconds: when the first sound comes, counted from the start of the container.
        errors: lines of level error or fatal.
        cause: the first of them that says something.
        refused: the format is none of those that may be opened.
        cut_off: something ends before the place where it should.
        no_decoder: ffmpeg knows the container, and not how the sound in it is coded.
        index_missing: an mp4 without its index, which is written last.
        unfillable: a gap in the timestamps is too long to be filled with silence.
        interrupted: ffmpeg was asked to stop by a signal.
    """

    def __init__(self) -> None:
        self.said_anything = False
        self.container = ""
        self.audio = ""
        self.audio_tracks = 0
        self.video_tracks = 0
        self.channels = 0
        self.first_sound_seconds = 0.0
        self.errors = 0
        self.cause = ""
        self.refused = False
        self.cut_off = False
        self.no_decoder = False
        self.index_missing = False
        self.unfillable = False
        self.interrupted = False
        self._stated_seconds: float | None = None
        self._guessed = False
        self._in_banner = False
        self._in_output = False
        self._saw_first_sound = False
        self._rest = b""

    @property
    def promised_seconds(self) -> float | None:
        """The length that the header states."""
        return None if self._guessed else self._stated_seconds

    def feed(self, data: bytes) -> None:
        """Take the next bytes, whole lines or not."""
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._read(line)
        self._rest = rest[:LONGEST_LINE]

    def finish(self) -> None:
        """Take what came last, without a line's end."""
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
            self.cut_off |= _CUT_OFF.search(text) is not None
            self._guessed |= text.startswith("Estimating duration")
        if level == "info":
            self._read_info(text)

    def _read_error(self, text: str) -> None:
        self.errors += 1
        self.refused |= text.startswith("Format not on whitelist")
        self.index_missing |= text.startswith("moov atom not found")
        self.no_decoder |= _NO_DECODER.search(text) is not None
        self.unfillable |= text.startswith("Failed to compensate for timestamp delta")
        said = _SELF.sub("", text).strip()
        if not self.cause and not _SAYS_NOTHING.match(said):
            self.cause = _shown(said)

    def _read_info(self, text: str) -> None:
        if self._in_banner:
            self._read_banner(text)
        elif text.startswith("Output #"):
            self._in_output = text.startswith("Output #0, s16le")
        elif self._in_output and (found := _SAMPLES.search(text)):
            self.channels = int(found[1]) // KBITS_PER_CHANNEL
            self._in_output = False
        elif found := _INPUT.match(text):
            self.container = _shown(found[1])
            self._in_banner = True
        elif text.startswith("Exiting normally, received signal"):
            self.interrupted = True
        elif not self._saw_first_sound and _FIRST_SOUND.fullmatch(text):
            self.first_sound_seconds = float(text)
            self._saw_first_sound = True

    def _read_banner(self, text: str) -> None:
        if text.startswith(("Stream mapping:", "Output #")):
            self._in_banner = False
            self._in_output = text.startswith("Output #0, s16le")
        elif self._stated_seconds is None and (found := _DURATION.match(text)):
            self._stated_seconds = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
        elif found := _STREAM.match(text):
            kind, about = found.groups()
            if kind == "Audio":
                self.audio_tracks += 1
                self.audio = self.audio or _shown(about)
            elif not about.endswith("(attached pic)"):
                self.video_tracks += 1


def _shown(text: str) -> str:
    """A recording's own words, fit for a terminal and a sidecar, and short."""
    return printable(text[:LONGEST_TEXT])[:LONGEST_TEXT]
