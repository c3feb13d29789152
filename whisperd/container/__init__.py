"""Does a recording hold as many bytes as its container promises?

Decoders go by what is there: of an upload that stopped at 37 % they give a plausible transcript of 37 %. Each format is
asked what it can tell; where it cannot tell, the answer is `Unknown` and never a guess. What a cut leads to:

============================= =========================================================================================
format                        a file cut off anywhere is ...
============================= =========================================================================================
WAV, RF64, BW64, W64, AIFF    Short if sound is missing; a cut in what follows the sound (tags) is Complete.
CAF, WMA (ASF), AVI           Short
MP4, M4A, MOV, 3GP            Short, also when the index (`moov`) has not come; Unknown when fragmented, without an index
                              of fragments (`mfra`) at the end, and cut exactly between two fragments
FLAC                          Short; Unknown if cut within its last frame (0.1 s), or if the number of samples is not given
Ogg (Vorbis, Opus, FLAC)      Short if cut within a page; Unknown between pages: a live recording ends so, too
Matroska, WebM                Short; of unknown length (live): Short within a cluster, Unknown between two
MP3 with a Xing or VBRI count Short; Unknown within the last frame, 26 ms
anything else                 Unknown
============================= =========================================================================================

A header that states no length (0, all ones, and for RIFF about 2 GiB or more) is that of a stream: Unknown.
A header that contradicts itself or its format is Damaged: waiting for the rest of such a file is of no use.
Bytes that are zero are never called damage, because a client that reserves the full size first leaves zeros for a while.
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
