"""Which format is it? Told by the first bytes, never by the name."""

from __future__ import annotations

from whisperd.container import chunks, flac, matroska, mp3, mp4, ogg
from whisperd.container.source import Damaged, Promise, Source, Unknown


def inspect(source: Source) -> Promise:
    """What the container says about its own completeness; reads 64 KiB or so and at most 4096 headers."""
    head = source.read(0, 16)
    match head[:4]:
        case b"RIFF" | b"RF64" | b"BW64":
            return chunks.riff(source)
        case b"FORM":
            return chunks.aiff(source)
        case b"caff":
            return chunks.caf(source)
        case b"fLaC":
            return flac.inspect(source, 0)
        case b"OggS":
            return ogg.inspect(source)
        case b"\x1aE\xdf\xa3":
            return matroska.inspect(source)
    if head == chunks.W64_RIFF:
        return chunks.w64(source)
    if head == chunks.ASF_HEADER:
        return chunks.asf(source)
    if head[4:8] in mp4.FIRST_BOXES:
        return mp4.inspect(source)
    if head[:3] == b"ID3":
        if reason := mp3.bad_id3(source):
            return Damaged(reason)
        after = mp3.after_id3(source)
        if after > source.size:
            return source.up_to(after)
        return flac.inspect(source, after) if source.read(after, 4) == b"fLaC" else mp3.inspect(source, after)
    return mp3.inspect(source, 0) if mp3.is_frame(head) else Unknown()
