"""Inputs for parsers: a seeded mutator, and a corpus that keeps what reaches code not reached before.

Coverage-guided, in plain Python: `sys.settrace` sees each step from line to line of the modules under test, and an input
that takes a new one becomes a parent of others. (atheris would need clang and a wheel for each Python; `sys.monitoring`
begins with 3.12; hypothesis does not know coverage.) The same trace counts lines, so that a loop without end is found
after a number of steps, not of seconds, and found again with the same seed.
"""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence
    from types import FrameType

STEPS_MAX = 2_000_000  # lines of the modules under test; the slowest honest input takes a tenth
CORPUS_MAX = 2000
ODD = (0, 1, 2, 4, 7, 8, 12, 16, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)
ODD_LONG = (*ODD, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
WORDS = (
    *(
        b"RIFF",
        b"RF64",
        b"WAVE",
        b"ds64",
        b"fmt ",
        b"data",
        b"LIST",
        b"FORM",
        b"AIFF",
        b"AIFC",
        b"COMM",
        b"SSND",
        b"caff",
    ),
    *(
        b"desc",
        b"ftyp",
        b"moov",
        b"mdat",
        b"moof",
        b"mfra",
        b"free",
        b"uuid",
        b"trak",
        b"stsd",
        b"stts",
        b"elst",
        b"dref",
    ),
    *(
        b"fLaC",
        b"OggS",
        b"OpusHead",
        b"\x01vorbis",
        b"\x1aE\xdf\xa3",
        b"\x18S\x80g",
        b"\x1fC\xb6u",
        b"ID3\x04",
        b"Xing",
    ),
    *(
        b"Info",
        b"VBRI",
        b"TAG",
        b"\xff\xfb",
        b"\xff\xf8",
        b"\xff\xf9",
        b"#EXTM3U",
        b"ffconcat version 1.0",
        b"v=0",
        b"<MPD ",
    ),
)


class Hang(Exception):  # what it is, in the words of the report
    """More steps than any honest input takes."""


def mutant(parents: Sequence[bytes], rng: random.Random) -> bytes:
    """A child of one or two inputs, damaged in one to eight places."""
    data = bytearray(rng.choice(parents))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 8))):
        rng.choice(_DAMAGE)(data, parents, rng)
    return bytes(data)


def _place(data: bytearray, rng: random.Random) -> int:
    """Somewhere; headers are where parsers read."""
    size = len(data)
    near = rng.random()
    if near < 0.6:
        return rng.randrange(min(size, 256) + 1)
    return max(0, size - rng.randrange(512)) if near < 0.8 else rng.randrange(size + 1)


def _flip(data: bytearray, _parents: Sequence[bytes], rng: random.Random) -> None:
    at = _place(data, rng)
    if at < len(data):
        data[at] ^= 1 << rng.randrange(8)


def _number(data: bytearray, _parents: Sequence[bytes], rng: random.Random) -> None:
    width = rng.choice("BHIQ")
    value = rng.choice(ODD_LONG) + rng.choice((0, 0, 0, 1, -1))
    value = rng.choice((value, len(data), rng.getrandbits(64)))
    packed = struct.pack(rng.choice("<>") + width, value % (1 << 8 * struct.calcsize("<" + width)))
    at = _place(data, rng)
    data[at : at + len(packed)] = packed


def _word(data: bytearray, _parents: Sequence[bytes], rng: random.Random) -> None:
    word, at = rng.choice(WORDS), _place(data, rng)
    data[at : at + len(word) * rng.randrange(2)] = word


def _remove(data: bytearray, _parents: Sequence[bytes], rng: random.Random) -> None:
    at = _place(data, rng)
    del data[at : at + rng.choice((1, 2, 4, 8, 64, 4096))]


def _repeat(data: bytearray, _parents: Sequence[bytes], rng: random.Random) -> None:
    at = _place(data, rng)
    data[at:at] = data[at : at + rng.choice((1, 4, 8, 16, 200))] * rng.choice((1, 2, 16, 300))


def _cut(data: bytearray, _parents: Sequence[bytes], rng: random.Random) -> None:
    del data[_place(data, rng) :]


def _noise(data: bytearray, _parents: Sequence[bytes], rng: random.Random) -> None:
    junk, at = rng.randbytes(rng.choice((1, 4, 16, 300))), _place(data, rng)
    data[at : at + len(junk)] = junk


def _splice(data: bytearray, parents: Sequence[bytes], rng: random.Random) -> None:
    other = rng.choice(parents)
    start = rng.randrange(len(other) + 1)
    at = _place(data, rng)
    data[at : at + rng.choice((0, 16, 1 << 20))] = other[start : start + rng.choice((4, 64, 4096))]


_DAMAGE = (_flip, _flip, _number, _number, _number, _word, _remove, _repeat, _cut, _noise, _splice)


class Guided:
    """Feeds mutants to a function and keeps those that take it along new ways.

    Args:
        target: raises what it finds wrong.
        seeds: inputs to begin with.
        modules: path parts of the files whose steps count.
        rng: decides all.
    """

    def __init__(
        self, target: Callable[[bytes], None], seeds: Sequence[bytes], modules: Sequence[str], rng: random.Random
    ) -> None:
        self._target = target
        self._modules = tuple(modules)
        self._rng = rng
        self._seen: set[tuple[str, int, int]] = set()
        self.corpus = list(seeds)
        for seed in seeds:
            self._run(seed)

    @property
    def ways(self) -> int:
        """How many different steps from line to line were seen."""
        return len(self._seen)

    def step(self) -> tuple[bytes, Exception | None]:
        """Try one more input: it, and what the target raised."""
        recent = self.corpus[-50:] if self._rng.random() < 0.5 else self.corpus
        data = mutant(recent, self._rng)
        before = len(self._seen)
        try:
            self._run(data)
        except Exception as error:  # noqa: BLE001  # what it raises is what is looked for
            return data, error
        if len(self._seen) > before and len(self.corpus) < CORPUS_MAX:
            self.corpus.append(data)
        return data, None

    def _run(self, data: bytes) -> None:
        steps = 0
        seen, modules = self._seen, self._modules

        def enter(frame: FrameType, _event: str, _argument: Any) -> Any:
            file = frame.f_code.co_filename
            if not file.endswith(modules):
                return None
            last = 0

            def line(frame: FrameType, _event: str, _argument: Any) -> Any:
                nonlocal last, steps
                steps += 1
                if steps > STEPS_MAX:
                    raise Hang(f"more than {STEPS_MAX} steps, at {file}:{frame.f_lineno}")
                seen.add((file, last, frame.f_lineno))
                last = frame.f_lineno
                return line

            return line

        before = sys.gettrace()
        sys.settrace(enter)
        try:
            self._target(data)
        finally:
            sys.settrace(before)
