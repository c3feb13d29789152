"""Recordings to upload, and what must be true of their way from the first byte to the transcript."""

from __future__ import annotations

import hashlib
import itertools
import struct
import time
import wave
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from support.daemon import Daemon

RATE = 16_000
HEADER_BYTES = 44
PAUSE_SECONDS = 0.5  # longer than any quiet time of the tests' daemon

_seeds = itertools.count(1)


@dataclass(frozen=True)
class Recording:
    """A WAV of noise, unlike any other."""

    path: Path
    data: bytes

    @property
    def sha256(self) -> str:
        """As in the sidecar."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def text(self) -> str:
        """What the scripted engine hears in it."""
        samples = self.data[HEADER_BYTES:]
        return f"scripted {len(samples) / 2 / RATE:.2f} s sum {zlib.crc32(samples):08x}"


def recording(path: Path, seconds: float = 1.0, *, streamed: bool = False) -> Recording:
    """Write one.

    Args:
        path: where to.
        seconds: its length; a second has 32 kB.
        streamed: with a header that promises no size, as ffmpeg writes it into a pipe: the container says nothing about
            whether all is there.
    """
    noise = np.random.default_rng(next(_seeds)).integers(-9000, 9000, int(seconds * RATE), dtype="<i2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(noise)
    if streamed:
        with path.open("r+b") as file:
            for offset in (4, HEADER_BYTES - 4):
                file.seek(offset)
                file.write(struct.pack("<I", 0xFFFF_FFFF))
    return Recording(path, path.read_bytes())


def claims(daemon: Daemon, name: str) -> int:
    """How often a file of this name was taken out of the inbox."""
    return sum(f">{name}: claimed," in line for line in daemon.lines)


def taken_once(
    daemon: Daemon, name: str, source: Recording, *, as_name: str = "", within_seconds: float = 60.0
) -> bool:
    """The whole recording was taken, one time, and its transcript is right; `as_name` if its job got a suffix."""
    job = as_name or name
    daemon.wait(
        lambda: daemon.status(job) in {"completed", "failed"}, what=f"an end of {job}", within_seconds=within_seconds
    )
    document = daemon.sidecar(job)
    assert (document["status"], document["error"]) == ("completed", None)
    daemon.wait((daemon.done / job).exists, what=f"{job} in done/")

    assert (document["sha256"], document["attempts"]) == (source.sha256, 1)
    assert hashlib.sha256((daemon.done / job).read_bytes()).hexdigest() == source.sha256
    assert (daemon.outbox / job).with_suffix(".txt").read_text().strip() == source.text
    assert claims(daemon, name) == (1 if not as_name else 2)
    assert not daemon.logged(f"{name}: changed after it was claimed")
    return not (daemon.inbox / name).exists() and not (daemon.failed / name).exists()


def not_taken(daemon: Daemon, name: str, reason: str = "") -> bool:
    """It is in the inbox, nobody claimed it, and after a moment its note gives the reason."""

    def told():
        document = daemon.sidecar(name) or {}
        return document.get("status") == "pending" and reason in document.get("reason", "")

    daemon.wait(told, what=f"`{reason}` as the reason why {name} waits")
    return claims(daemon, name) == 0 and (daemon.inbox / name).exists()


def fed(pipe, data: bytes, pieces: int, after_each) -> None:
    """Write `data` in pieces with pauses longer than the quiet time; `after_each` is asked whether all is still well."""
    size = -(-len(data) // pieces)
    *first, last = (data[start : start + size] for start in range(0, len(data), size))
    for piece in first:
        pipe.write(piece)
        pipe.flush()
        time.sleep(PAUSE_SECONDS)
        assert after_each()
    pipe.write(last)
    pipe.flush()


def sizes_seen(daemon: Daemon, name: str, client: subprocess.Popen, full: int, pattern: str = "") -> list[int]:
    """The sizes that an upload had on its way, until its client ends; nothing was claimed while a byte was missing.

    Args:
        daemon: which takes it.
        name: its name in the end.
        client: who uploads.
        full: its size in the end.
        pattern: of its name on the way, if that is another.
    """
    seen: list[int] = []
    while client.poll() is None:
        claimed = claims(daemon, name)
        for path in daemon.inbox.glob(pattern or name):
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                continue
            if size < full:
                assert claimed == 0, f"{name} was taken at {size} of {full} bytes"
                seen += [size] if size not in seen[-1:] else []
        time.sleep(0.01)
    return seen
