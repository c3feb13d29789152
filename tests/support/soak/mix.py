"""What people upload, the bad and the odd included, and what must become of each; the seed decides all of it."""

from __future__ import annotations

import io
import wave
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import soundfile

import whisperd

if TYPE_CHECKING:
    import random

RATE = 16_000
FOLDERS = ("", "alice", "bob", "bob/2026/07", "größe & co", 'it\'s "quoted"', "new\nline", "caf\udce9", "-rf")
SAME_NAMES = ("alice/meeting.wav", "alice/meeting.flac", "bob/meeting.wav", "memo.wav")
KINDS = {"good": 70, "duplicate": 6, "same name": 9, "empty": 3, "no media": 4, "truncated": 4, "playlist": 4}
LENGTHS = ((60, 0.1, 1.0), (30, 1.0, 4.0), (8, 4.0, 15.0), (2, 15.0, 60.0))  # weight, from, to: seconds of audio
REMEMBERED = 20  # uploads whose content may come again
VOICE = Path(whisperd.__file__).parent / "samples/jfk.ogg"
HALVES = ("fellow america", "can do for your country")  # what is said in each half of it, and in the other is not


@dataclass(frozen=True)
class Upload:
    """One file, and its due end.

    Attributes:
        kind: for the report.
        name: relative to the inbox.
        data: its content.
        codes: of the errors that it may fail with; empty: it must be completed.
        text: what its transcript must say; each engine has its own way of saying so, see `Mix.hears`.
    """

    kind: str
    name: str
    data: bytes
    codes: frozenset[str] = frozenset()
    text: str = ""


class Voice(Protocol):
    """Makes recordings that one engine understands."""

    def recording(self, rng: random.Random) -> tuple[np.ndarray, str]:
        """Samples (int16, 16 kHz), unlike all others, and the text that must come of them."""

    def hears(self, wanted: str, got: str) -> bool:
        """Whether a transcript says what it must."""


class Noise:
    """For the scripted engine, which writes down the checksum of what it is given."""

    def recording(self, rng: random.Random) -> tuple[np.ndarray, str]:
        """Noise of many lengths."""
        _, shortest, longest = rng.choices(LENGTHS, [weight for weight, *_ in LENGTHS])[0]
        count = int(rng.uniform(shortest, longest) * RATE)
        samples = np.random.default_rng(rng.getrandbits(64)).integers(-9000, 9000, count, dtype="<i2")
        return samples, f"scripted {count / RATE:.2f} s sum {zlib.crc32(samples.tobytes()):08x}"

    def hears(self, wanted: str, got: str) -> bool:
        """To the letter."""
        return got.strip() == wanted


class Speech:
    """For a real model: the halves of a sentence, in any order and number."""

    def __init__(self) -> None:
        voice, rate = soundfile.read(VOICE, dtype="int16")
        assert rate == RATE
        self._halves = voice[: len(voice) // 2], voice[len(voice) // 2 :]

    def recording(self, rng: random.Random) -> tuple[np.ndarray, str]:
        """One to three halves with pauses; the last pause makes it unlike all others."""
        order = [rng.randrange(2) for _ in range(rng.randint(1, 3))]
        pieces = []
        for half in order:
            pieces += [self._halves[half], np.zeros(rng.randrange(RATE // 2, 2 * RATE), np.int16)]
        return np.concatenate(pieces), "".join(map(str, order))

    def hears(self, wanted: str, got: str) -> bool:
        """What was said, and not what was not; a small model repeats or skips some of it, and that is not the daemon's."""
        return all((_letters(said) in _letters(got)) == (str(half) in wanted) for half, said in enumerate(HALVES))


class Mix:
    """An endless supply of uploads.

    Args:
        rng: decides all.
        voice: makes the good ones.
    """

    def __init__(self, rng: random.Random, voice: Voice) -> None:
        self._rng = rng
        self._voice = voice
        self._count = 0
        self._earlier: list[Upload] = []

    def next(self) -> Upload:
        """The next one."""
        self._count += 1
        kind = self._rng.choices(list(KINDS), list(KINDS.values()))[0]
        if kind == "duplicate" and self._earlier:
            earlier = self._rng.choice(self._earlier)
            return Upload(kind, self._name(Path(earlier.name).suffix), earlier.data, text=earlier.text)
        if kind in {"good", "duplicate", "same name"}:
            return self._good(kind)
        return self._bad(kind)

    def _good(self, kind: str) -> Upload:
        samples, text = self._voice.recording(self._rng)
        name = self._rng.choice(SAME_NAMES) if kind == "same name" else self._name(self._rng.choice((".wav", ".flac")))
        upload = Upload(kind, name, encoded(samples, Path(name).suffix), text=text)
        self._earlier = [*self._earlier[-REMEMBERED + 1 :], upload]
        return upload

    def _bad(self, kind: str) -> Upload:
        if kind == "empty":
            return Upload(kind, self._name(".m4a"), b"", frozenset({"empty"}))
        if kind == "no media":
            data = self._rng.choice([b"Dear Alice,\n\n", b"%PDF-1.7\n", b"PK\x03\x04"]) + self._rng.randbytes(4000)
            return Upload(kind, self._name(".mp3"), data, frozenset({"not_media", "corrupt", "no_audio"}))
        if kind == "truncated":
            samples, _ = self._voice.recording(self._rng)
            whole = encoded(samples, ".wav")
            data = whole[: self._rng.randrange(44, len(whole) * 8 // 10)]
            return Upload(kind, self._name(".wav"), data, frozenset({"truncated"}))
        data = b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#%d\n" % self._count
        return Upload(kind, self._name(".mp3"), data, frozenset({"forbidden"}))

    def _name(self, suffix: str) -> str:
        folder = self._rng.choice(FOLDERS)
        return f"{folder}/{self._count:06}{suffix}".removeprefix("/")


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, text.lower()))


def encoded(samples: np.ndarray, suffix: str) -> bytes:
    """As WAV or FLAC: both give the very samples back."""
    buffer = io.BytesIO()
    if suffix == ".flac":
        soundfile.write(buffer, samples, RATE, format="FLAC")
        return buffer.getvalue()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return buffer.getvalue()
