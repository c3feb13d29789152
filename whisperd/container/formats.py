"""The table of formats, recognised by their first bytes and never by file name; a new format is registered here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd.container import chunks, flac, matroska, mp3, mp4
from whisperd.container.source import Damaged, Promise, Source, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD_BYTES = 65_536  # `playlist_kind` wants as many
_MAGIC_BYTES = 16


def _nothing(_source: Source) -> Promise:
    return Unknown()


def _tagged(source: Source) -> Promise:
    if reason := mp3.bad_id3(source):
        return Damaged(reason)
    after = mp3.after_id3(source)
    if after > source.size:
        return source.up_to(after)
    return flac.inspect(source, after) if source.read(after, 4) == b"fLaC" else mp3.inspect(source, after)


@dataclass(frozen=True, slots=True)
class Format:
    """A format and how it is recognised and checked.

    Attributes:
        name: for messages, after "the file looks like".
        begins: a pattern for the first 16 bytes.
        inspect: finds what the header says about the length of the file.
        is_readable: false if no version of ffmpeg decodes it.
    """

    name: str
    begins: re.Pattern[bytes]
    inspect: Callable[[Source], Promise] = _nothing
    is_readable: bool = True


def _format(
    name: str, begins: bytes, inspect: Callable[[Source], Promise] = _nothing, *, is_readable: bool = True
) -> Format:
    return Format(name, re.compile(begins, re.DOTALL), inspect, is_readable)


# The first match counts, so formats recognised by a few bits come after those with a magic number.
FORMATS = (
    _format("MIDI (notes instead of sound)", rb"MThd|RIFF....RMID", is_readable=False),
    _format("AVI", rb"RIFF....AVI ", chunks.riff),
    _format("WAV", rb"(?:RIFF|RF64|BW64)(?:....WAVE|.{0,7}\Z)", chunks.riff),
    _format("RIFF", rb"RIFF|RF64|BW64", chunks.riff),
    _format("AIFF", rb"FORM(?:....AIF[FC]|.{0,7}\Z)", chunks.aiff),
    _format("CAF", rb"caff", chunks.caf),
    _format("Wave64", re.escape(chunks.W64_RIFF), chunks.w64),
    _format("WMA", re.escape(chunks.ASF_HEADER), chunks.asf),
    _format("FLAC", rb"fLaC", flac.inspect),
    _format("Ogg", rb"OggS", chunks.ogg),
    _format("Matroska or WebM", rb"\x1aE\xdf\xa3", matroska.inspect),
    _format("MP4", b"....(?:" + b"|".join(sorted(mp4.FIRST_BOXES)) + b")", mp4.inspect),
    _format("MP3 or FLAC with an ID3 tag", rb"ID3", _tagged),
    _format("AAC (ADIF)", rb"ADIF", is_readable=False),
    _format("AAC", rb"\xff[\xf0\xf1\xf8\xf9]|\x56[\xe0-\xff]"),
    _format("AC-3", rb"\x0b\x77"),
    _format("AMR", rb"#!AMR"),
    _format("AU", rb"\.snd"),
    _format("DSF", rb"DSD "),
    _format("DSDIFF", rb"FRM8"),
    _format("DTS", rb"\x7f\xfe\x80\x01"),
    _format("FLV", rb"FLV\x01"),
    _format("LA", rb"LA0\d", is_readable=False),
    _format("LPAC", rb"LPAC", is_readable=False),
    _format("MLP or TrueHD", rb"....\xf8\x72\x6f[\xba\xbb]"),
    _format("Monkey's Audio", rb"MAC "),
    _format("Musepack", rb"MP\+|MPCK"),
    _format("MP2", rb"\xff[\xf4\xf5\xfc\xfd]"),
    _format("NUT", rb"nut/multimedia"),
    _format("OptimFROG", rb"OFR ", is_readable=False),
    _format("RealAudio", rb"\.ra\xfd|\.RMF"),
    _format("Shorten", rb"ajkg"),
    _format("TTA", rb"TTA[12]"),
    _format("VOC", rb"Creative Voice"),
    _format("WavPack", rb"wvpk"),
    _format("MP3", mp3.FRAME, mp3.inspect),
    # Musepack before 7: no bit rate, no intensity stereo, the version, the highest band, one frame in a block
    _format("Musepack of version 4, 5 or 6", rb"[\x01\x41\x81\xc1][\x20-\x37][\x00\x20]\x00", is_readable=False),
)

_TEXT_PLAYLISTS = {
    b"#EXTM3U": "an HLS or M3U playlist",
    b"ffconcat version": "a concat script",
    b"[playlist]": "a PLS playlist",
    b"v=0": "an SDP session description",
}
_XML_PLAYLISTS = re.compile(
    rb"<(?:\w+:)?(MPD|smil|asx|playlist|CompositionPlaylist|SmoothStreamingMedia)[\s>]", re.IGNORECASE
)


def format_of(source: Source) -> Format | None:
    """Recognise the format of a file; None if it is none of FORMATS."""
    head = source.read(0, _MAGIC_BYTES)
    return next((known for known in FORMATS if known.begins.match(head)), None)


def inspect(source: Source) -> Promise:
    """Find out whether the file is complete according to its container; reads about 64 KiB and at most 4096 headers."""
    known = format_of(source)
    return known.inspect(source) if known else Unknown()


def playlist_kind(head: bytes) -> str:
    """Recognise a playlist or script, which names recordings elsewhere; empty if it is none."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        found = _XML_PLAYLISTS.search(text)
        return f"a playlist ({found[1].decode('ascii')})" if found else ""
    return next((kind for start, kind in _TEXT_PLAYLISTS.items() if text.startswith(start)), "")
