"""What is fuzzed, and what must hold of every input.

`parsers`: whisperd's own readers of what strangers wrote. They return, within bounds, or raise what they document.
`decoding`: a real ffmpeg on damaged recordings. It ends with samples or with a JobError, in time, and leaves nothing.
"""

from __future__ import annotations

import collections
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

from support import containers
from support.mutate import Guided, Hang, mutant
from whisperd.container import HEAD_BYTES, Complete, Damaged, Short, Source, Unknown, format_of, inspect, playlist_kind
from whisperd.core.errors import JobError
from whisperd.core.options import MediaOptions
from whisperd.media.decode import decode
from whisperd.media.ffmpeg import LONGEST_TEXT, FfmpegLog
from whisperd.spool import status_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

READS_MAX = 20_000
BYTES_MAX = 1 << 20
LIMIT_SECONDS = 60.0  # of sound in a damaged recording
DEADLINE_SECONDS = 30.0  # a whole decode; the machine may be busy

LOG = b"""\
[info] Input #0, matroska,webm, from 'fd:':
[info]   Duration: 01:02:03.45, start: 0.000000, bitrate: 340 kb/s
[info]   Stream #0:0: Video: h264 (High), yuv420p, 1280x720
[info]   Stream #0:1(eng): Audio: aac (LC), 48000 Hz, stereo, fltp
[info] Stream mapping:
[warning] [mp3 @ 0x55] Estimating duration from bitrate, this may be inaccurate
[error] [aac @ 0x55] channel element 2.10 is not allocated
[Parsed_asetpts_1 @ 0x7f] [info] 4.062500
"""


class CountingSource(Source):
    """Counts what is asked of it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.reads = self.bytes_read = 0

    def read(self, offset: int, length: int) -> bytes:
        """As the real one."""
        data = super().read(offset, length)
        self.reads += 1
        self.bytes_read += len(data)
        return data


def parse_container(data: bytes) -> None:
    """One of four answers, from a bounded look."""
    source = CountingSource(data)
    promise = inspect(source)
    assert isinstance(promise, Complete | Damaged | Short | Unknown)
    assert source.reads < READS_MAX
    assert source.bytes_read < BYTES_MAX
    if isinstance(promise, Short):
        assert promise.present_bytes == len(data)
        assert promise.promised_bytes is None or promise.promised_bytes > len(data)


def parse_header(data: bytes) -> None:
    """A word for people, whatever the first bytes are."""
    head = data[:HEAD_BYTES]
    assert playlist_kind(head).isprintable()
    known = format_of(Source(head))
    assert known is None or known.name.isprintable()


def parse_log(data: bytes) -> None:
    """What is shown is fit to be shown, however the words come."""
    log = FfmpegLog()
    for at in range(0, len(data), 1000):
        log.feed(data[at : at + 1000])
    log.finish()
    for text in (log.container, *(track.about + track.title for track in log.tracks), log.cause):
        assert text.isprintable()
        assert len(text) <= LONGEST_TEXT
    assert log.promised_seconds is None or log.promised_seconds >= 0


def parse_sidecar(data: bytes) -> None:
    """One of ours, with what names it, or None."""
    document = status_file.decode(data)
    assert document is None or document.keys() >= status_file.IDENTITY


class Parsers:
    """Every parser, each with a corpus of its own, in turns.

    Args:
        recordings: real ones, to begin with.
        seed: makes the same inputs again.
    """

    def __init__(self, recordings: Sequence[bytes], seed: int) -> None:
        heads = [data[:2000] + data[-600:] for data in recordings]
        status = status_file.encode(dict.fromkeys(status_file.FIELDS) | {"schema": 1})
        targets: tuple[tuple[str, Callable[[bytes], None], Sequence[bytes], tuple[str, ...], int], ...] = (
            ("container", parse_container, [*recordings, *heads], _sources("container"), 6),
            ("header", parse_header, heads, ("container/formats.py",), 2),
            ("ffmpeg's log", parse_log, [LOG], ("media/ffmpeg.py",), 1),
            ("sidecar", parse_sidecar, [status], ("spool/status_file.py",), 1),
        )
        self.tried: collections.Counter[str] = collections.Counter()
        self.guided = {
            name: Guided(target, seeds, modules, random.Random(f"{seed} {name}"))
            for name, target, seeds, modules, _ in targets
        }
        self._turns = [name for name, *_, share in targets for _ in range(share)]

    def step(self) -> tuple[str, bytes, Exception | None]:
        """Try one more input on the parser whose turn it is."""
        name = self._turns[self.tried.total() % len(self._turns)]
        self.tried[name] += 1
        return name, *self.guided[name].step()


def _sources(room: str) -> tuple[str, ...]:
    import whisperd  # noqa: PLC0415

    return tuple(str(path) for path in sorted((Path(whisperd.__file__).parent / room).glob("*.py")))


class Decoding:
    """Damaged recordings, decoded by a real ffmpeg.

    Args:
        recordings: real ones, short.
        ffmpeg: which.
        directory: for the files.
        seed: makes the same inputs again.
    """

    def __init__(self, recordings: Sequence[bytes], ffmpeg: Path, directory: Path, seed: int) -> None:
        self._recordings = recordings
        self._rng = random.Random(f"{seed} decoding")
        self._directory = directory
        self._options = MediaOptions(ffmpeg=ffmpeg, max_duration_seconds=LIMIT_SECONDS, stall_seconds=10.0)
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.slowest_seconds = 0.0

    def step(self) -> tuple[bytes, Exception | None]:
        """Decode one more input: it, and what was wrong with how that ended."""
        data = mutant(self._recordings, self._rng)
        try:
            self.check(data)
        except Exception as error:  # noqa: BLE001  # what it raises is what is looked for
            return data, error
        return data, None

    def check(self, data: bytes) -> None:
        """Decode, and look at what is left afterwards."""
        source, target = self._directory / "upload", self._directory / "samples"
        source.write_bytes(data)
        before, started = _held(), time.monotonic()
        try:
            decoded = decode(source, target, self._options, lambda _seconds: None)
        except JobError as error:
            code, shown = error.job_code, error.message
        else:
            code, shown = "samples", decoded.format
            assert target.stat().st_size == decoded.samples * 2
            assert decoded.duration_seconds <= LIMIT_SECONDS
            target.unlink()
        self.outcomes[code] += 1
        assert shown.isprintable()
        seconds = time.monotonic() - started
        self.slowest_seconds = max(self.slowest_seconds, seconds)
        source.unlink()
        if seconds > DEADLINE_SECONDS:
            raise Hang(f"{seconds:.0f} s for {len(data)} bytes")
        assert _held() == before, "a process or a descriptor is left"
        assert not list(self._directory.iterdir()), "a file is left, perhaps samples of a failed decode"


def _held() -> tuple[set[str], str]:
    """Descriptors and children of this process."""
    tasks = Path("/proc/self/task").iterdir()
    return set(os.listdir("/proc/self/fd")), "".join((task / "children").read_text() for task in tasks)


def recordings(directory: Path, seconds: float = 4.0) -> list[bytes]:
    """One of each kind that the tests know."""
    return [containers.make(kind, directory, seconds) for kind in containers.KINDS]
