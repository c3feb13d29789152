"""Real recordings in every container, made by the ffmpeg that imageio-ffmpeg carries: four seconds of noise each."""

from __future__ import annotations

import struct
import subprocess
from typing import TYPE_CHECKING

import imageio_ffmpeg

if TYPE_CHECKING:
    from pathlib import Path

NOISE = ["-f", "lavfi", "-i", "anoisesrc=d={}:c=pink:a=0.5:seed=7", "-ac", "1", "-ar", "16000"]

# name -> (extension, arguments)
KINDS = {
    "wav": ("wav", []),
    "wav float with tags": ("wav", ["-c:a", "pcm_f32le", "-metadata", "title=tag", "-write_id3v2", "1"]),
    "rf64": ("wav", ["-rf64", "always"]),
    "w64": ("w64", []),
    "aiff": ("aiff", []),
    "caf": ("caf", []),
    "wma": ("wma", []),
    "avi": ("avi", ["-c:a", "pcm_s16le"]),
    "m4a, index last": ("m4a", []),
    "m4a, index first": ("m4a", ["-movflags", "+faststart"]),
    "mp4, fragmented": ("mp4", ["-movflags", "frag_keyframe+empty_moov+default_base_moof", "-frag_duration", "500000"]),
    "mov": ("mov", ["-c:a", "pcm_s16le"]),
    "3gp": ("3gp", ["-ar", "16000", "-c:a", "aac"]),
    "flac": ("flac", []),
    "flac, small blocks": ("flac", ["-frame_size", "576"]),
    "ogg vorbis": ("ogg", ["-ac", "2", "-c:a", "vorbis", "-strict", "-2"]),
    "opus": ("opus", ["-c:a", "libopus"]),
    "matroska": ("mkv", ["-c:a", "flac"]),
    "webm": ("webm", ["-c:a", "libopus"]),
    "webm, live": ("webm", ["-c:a", "libopus", "-live", "1"]),
    "mp3": ("mp3", []),
    "mp3 without tags": ("mp3", ["-id3v2_version", "0"]),
    "mp3 without a count": ("mp3", ["-write_xing", "0"]),
    "aac": ("aac", []),
}
STREAMED = {"wav": "wav", "flac": "flac", "mkv": "matroska", "webm": "webm", "mp3": "mp3", "ogg": "ogg", "aac": "adts"}


def ffmpeg(*arguments: str | Path, pipe: bool = False) -> bytes:
    """Run ffmpeg, without a seekable output if `pipe`; returns what it wrote to standard output."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-threads", "1", *map(str, arguments)]
    run = subprocess.run(command + (["pipe:1"] if pipe else []), stdout=subprocess.PIPE, check=True)
    return run.stdout


def noise(seconds: float = 4.0) -> list[str]:
    """The arguments that make so much of it."""
    return [argument.format(seconds) for argument in NOISE]


def make(kind: str, directory: Path, seconds: float = 4.0) -> bytes:
    """One recording of KINDS."""
    extension, arguments = KINDS[kind]
    path = directory / f"sound.{extension}"
    ffmpeg(*noise(seconds), *arguments, "-y", path)
    return path.read_bytes()


def make_streamed(extension: str) -> bytes:
    """A recording written to a pipe: its header could not be corrected at the end."""
    return ffmpeg(*noise(), "-f", STREAMED[extension], pipe=True)


def wav(data_size: int, present: int, *, outer: int | None = None, magic: bytes = b"RIFF") -> bytes:
    """A WAV whose header promises `data_size` bytes of sound, of which `present` are there."""
    fmt = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    outer = 4 + len(fmt) + 8 + data_size if outer is None else outer
    return (
        magic
        + struct.pack("<I", outer & 0xFFFFFFFF)
        + b"WAVE"
        + fmt
        + b"data"
        + struct.pack("<I", data_size & 0xFFFFFFFF)
        + bytes(present)
    )


def box(kind: bytes, content: bytes = b"", size: int | None = None) -> bytes:
    """A box of an MP4, which may state a wrong size."""
    return struct.pack(">I", 8 + len(content) if size is None else size) + kind + content


FTYP = box(b"ftyp", b"M4A \0\0\0\0")
