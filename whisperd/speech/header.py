"""What the first bytes of an upload tell: that it is a playlist, and how long the file must be.

ffmpeg corrects the length of a WAV, AVI, CAF or WMA that was cut off to what is there and says nothing: without a look
at the header the first third of an upload would pass for the whole.
"""

from __future__ import annotations

import re

HEAD_BYTES = 65_536

_TEXT_PLAYLISTS = {
    b"#EXTM3U": "an HLS or M3U playlist",
    b"ffconcat version": "a concat script",
    b"[playlist]": "a PLS playlist",
    b"v=0": "an SDP session description",
}
_XML_PLAYLISTS = re.compile(
    rb"<(?:\w+:)?(MPD|smil|asx|playlist|CompositionPlaylist|SmoothStreamingMedia)[\s>]", re.IGNORECASE
)

# Recorders that write to a pipe, or that died, leave 0, all ones, or (sox, arecord) about 2 GiB.
_RIFF_UNKNOWN_FROM = 0x7FFF_0000
_LONG_UNKNOWN_FROM = 1 << 62

_W64_RIFF = bytes.fromhex("72696666 2e91 cf11 a5d6 28db04c10000")  # Sony Wave64 specification
_ASF_HEADER = bytes.fromhex("3026b275 8e66 cf11 a6d9 00aa0062ce6c")  # ASF specification 10.1
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c 47a9 cf11 8ee4 00c00c205365")  # likewise, fields in 3.2
_ASF_SIZE_AT, _ASF_FLAGS_AT = 40, 88


def playlist_kind(head: bytes) -> str:
    """What kind of playlist or script this is, which names recordings elsewhere; empty if it is none."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        found = _XML_PLAYLISTS.search(text)
        return f"a playlist ({found[1].decode('ascii')})" if found else ""
    return next((kind for start, kind in _TEXT_PLAYLISTS.items() if text.startswith(start)), "")


def promised_bytes(head: bytes) -> int | None:
    """The size that the header states for the whole file, or for what of it holds sound; None if it states none."""
    size = None
    match head[:4]:
        case b"RIFF":  # WAV, AVI
            size = _little(head, 4, 4)
            return size + 8 if 0 < size < _RIFF_UNKNOWN_FROM else None
        case b"RF64" | b"BW64" if head[12:16] == b"ds64":  # EBU Tech 3306
            size = _little(head, 20, 8) + 8
        case b"caff":
            size = _caf_bytes(head)
        case _ if head.startswith(_W64_RIFF):
            size = _little(head, 16, 8)
        case _ if head.startswith(_ASF_HEADER):
            size = _asf_bytes(head)
    return size if size is not None and 8 < size < _LONG_UNKNOWN_FROM else None  # noqa: PLR2004  8 is a header without size


def _little(head: bytes, at: int, width: int) -> int:
    return int.from_bytes(head[at : at + width], "little")


def _caf_bytes(head: bytes) -> int | None:
    """The end of the chunk `data`; -1 stands for "until the end of the file" (Apple Core Audio Format Specification)."""
    at = 8
    while at + 12 <= len(head):
        kind, size = head[at : at + 4], int.from_bytes(head[at + 4 : at + 12], "big", signed=True)
        at += 12 + size
        if size < 0 or kind == b"data":
            return at if size >= 0 else None
    return None


def _asf_bytes(head: bytes) -> int | None:
    at = head.find(_ASF_FILE_PROPERTIES)
    if at < 0 or len(head) < at + _ASF_FLAGS_AT + 4 or _little(head, at + _ASF_FLAGS_AT, 4) & 1:  # 1: broadcast
        return None
    return _little(head, at + _ASF_SIZE_AT, 8)
