"""CONTAINER: checks whether a file holds as many bytes as its container promises.

Decoders do not: of an upload that stopped at 37 % they decode 37 %, and the transcript looks plausible. If a format
cannot tell, the answer is `Unknown` and never a guess. The answer for a file that was cut off:

============================= =========================================================================================
format                        answer
============================= =========================================================================================
WAV, RF64, BW64, W64, AIFF    Short if sound is missing; Complete if only something behind the sound (tags) is missing
CAF, WMA (ASF), AVI           Short
MP4, M4A, MOV, 3GP            Short, also when the index (`moov`) has not come; Unknown when fragmented, without an index
                              of fragments (`mfra`) at the end, and cut exactly between two fragments
FLAC                          Short; Unknown if cut within its last frame (0.1 s), or if the number of samples is not given
Ogg (Vorbis, Opus, FLAC)      Short if cut within a page; Unknown between pages: live recordings end there
Matroska, WebM                Short; of unknown length (live): Short within a cluster, Unknown between two
MP3 with a Xing or VBRI count Short; Unknown within the last frame, 26 ms
anything else                 Unknown
============================= =========================================================================================

A header that states no length (0, all ones, and for RIFF about 2 GiB or more) belongs to a stream: Unknown.
A header that contradicts itself or its format is Damaged: waiting for the rest of such a file is useless.
Zero bytes are never called damage, because clients that reserve the full size first leave zeros for a while.

To add a format, write a function `Source -> Promise` in a module of its own and add a line to `formats.FORMATS`.
"""

from whisperd.container.formats import HEAD_BYTES, format_of, inspect, playlist_kind
from whisperd.container.mp3 import holds_one_frame
from whisperd.container.source import Complete, Damaged, Promise, Short, Source, Unknown

__all__ = [
    "HEAD_BYTES",
    "Complete",
    "Damaged",
    "Promise",
    "Short",
    "Source",
    "Unknown",
    "format_of",
    "holds_one_frame",
    "inspect",
    "playlist_kind",
]
