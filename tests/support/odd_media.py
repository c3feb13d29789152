"""Recordings that no encoder would write, byte by byte: odd samples, odd rates, and lengths that are not there."""

from __future__ import annotations

import struct

from whisperd.container.flac import _crc8, _crc16


def wav(bits: int, rate: int, seconds: float, *, is_float: bool = False, stated_bytes: int | None = None) -> bytes:
    """A mono WAV of zeros; `stated_bytes` is what its header says instead of the truth."""
    width = (bits + 7) // 8
    data = bytes(int(rate * seconds) * width)
    stated = len(data) if stated_bytes is None else stated_bytes
    form = struct.pack("<HHIIHH", 3 if is_float else 1, 1, rate, min(rate * width, 0xFFFF_FFFF), width, bits)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + stated)
        + b"WAVEfmt \x10\0\0\0"
        + form
        + b"data"
        + struct.pack("<I", stated)
        + data
    )


def flac(rate: int, hours: int, block: int) -> bytes:
    """Silence of any length at a rate so low that it takes a few kilobytes (RFC 9639)."""
    total = rate * hours * 3600
    info = struct.pack(">HH", block, block) + bytes(6) + (rate << 44 | 15 << 36 | total).to_bytes(8, "big") + bytes(16)
    frames = []
    for number in range(-(-total // block)):
        size = min(block, total - number * block)
        head = b"\xff\xf8\x70\x08" + chr(number).encode() + struct.pack(">H", size - 1)
        frame = head + bytes([_crc8(head)]) + b"\0\0\0"  # one constant subframe
        frames.append(frame + struct.pack(">H", _crc16(frame)))
    return b"fLaC\x80\0\0\x22" + info + b"".join(frames)


def box(kind: bytes, *content: bytes) -> bytes:
    """One box (ISO/IEC 14496-12, 4.2)."""
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + kind + data


ONE_URL = box(b"url ", struct.pack(">I", 1))  # the sound is in this file


def mp4(*, edits: bytes = b"", ticks: int = 1, reference: bytes = ONE_URL) -> bytes:
    """One second of PCM: 16,000 samples that say of themselves that each lasts so many ticks of 1/16,000 s.

    Args:
        edits: entries of an edit list, 12 bytes each: length, place (-1: nothing), rate.
        ticks: of each sample.
        reference: where the sound is, as a box in `dref`.
    """
    start = box(b"ftyp", b"isom\0\0\2\0isomiso2")
    matrix = struct.pack(">9I", 65536, 0, 0, 0, 65536, 0, 0, 0, 0x4000_0000)

    def index(offset: int) -> bytes:
        sound = box(b"sowt", bytes(6) + b"\0\1" + bytes(8) + struct.pack(">HHHHI", 1, 16, 0, 0, 16_000 << 16))
        chunks = b"".join(struct.pack(">I", offset + 2000 * number) for number in range(16))
        table = box(
            b"stbl",
            box(b"stsd", struct.pack(">II", 0, 1), sound),
            box(b"stts", struct.pack(">IIII", 0, 1, 16_000, ticks)),
            box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 1000, 1)),
            box(b"stsz", struct.pack(">III", 0, 2, 16_000)),
            box(b"stco", struct.pack(">II", 0, 16), chunks),
        )
        references = box(b"dinf", box(b"dref", struct.pack(">II", 0, 1), reference))
        length = min(16_000 * ticks, 0xFFFF_FFFF)
        media = box(
            b"mdia",
            box(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, 16_000, length, 0x55C4, 0)),
            box(b"hdlr", bytes(8), b"soun", bytes(12), b"x\0"),
            box(b"minf", box(b"smhd", bytes(8)), references, table),
        )
        edit = box(b"edts", box(b"elst", struct.pack(">II", 0, len(edits) // 12), edits)) if edits else b""
        track = struct.pack(">IIIIII", 7, 0, 0, 1, 0, 1000) + bytes(8) + b"\0\0\0\0\1\0\0\0" + matrix + bytes(8)
        movie = (
            struct.pack(">IIIII", 0, 0, 0, 1000, 1000) + b"\0\1\0\0\1\0" + bytes(10) + matrix + bytes(24) + b"\0\0\0\2"
        )
        return box(b"moov", box(b"mvhd", movie), box(b"trak", box(b"tkhd", track), edit, media))

    return start + index(len(start) + len(index(0)) + 8) + box(b"mdat", bytes(32_000))


def element(kind: str, *content: bytes) -> bytes:
    """One element of Matroska (RFC 8794), its id in hexadecimal."""
    data = b"".join(content)
    return bytes.fromhex(kind) + (1 << 56 | len(data)).to_bytes(8, "big") + data


def matroska(tracks: int) -> bytes:
    """So many tracks of PCM, and a second of sound in the first one."""
    head = element("1a45dfa3", element("4282", b"matroska"))

    def track(number: int) -> bytes:
        what = [
            element("d7", number.to_bytes(4, "big")),
            element("73c5", number.to_bytes(4, "big")),
            element("83", b"\2"),
        ]
        sound = element(
            "e1", element("b5", struct.pack(">f", 16_000.0)), element("9f", b"\1"), element("6264", b"\x10")
        )
        return element("ae", *what, element("86", b"A_PCM/INT/LIT"), sound)

    cluster = element("1f43b675", element("e7", b"\0"), element("a3", b"\x81\0\0\x80", bytes(32_000)))
    all_tracks = element("1654ae6b", *(track(number) for number in range(1, tracks + 1)))
    return head + element("18538067", element("1549a966", element("2ad7b1", b"\x0f\x42\x40")), all_tracks, cluster)


def id3(size: int, kind: bytes = b"TXXX") -> bytes:
    """An ID3v2.4 tag with one frame of about that size, a text or a picture."""

    def sevens(number: int) -> bytes:
        return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))

    start = b"\3" if kind == b"TXXX" else b"\0image/png\0\3\0"
    frame = kind + sevens(len(start) + size) + b"\0\0" + start + b"x" * size
    return b"ID3\4\0\0" + sevens(len(frame)) + frame
