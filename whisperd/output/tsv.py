"""The format tsv: a table of start and end in milliseconds and text, as the `whisper` command writes it.

Where channels are speakers, a fourth column names them. Times are not corrected as those of subtitles are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.output.text import has_speakers, milliseconds, one_line

if TYPE_CHECKING:
    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import About, Transcript


def write(transcript: Transcript, _options: OutputOptions, _about: About) -> str:
    """Return the text of the file."""
    with_speakers = has_speakers(transcript)
    return ("start\tend\ttext\tspeaker\n" if with_speakers else "start\tend\ttext\n") + "".join(
        f"{milliseconds(segment.start)}\t{milliseconds(segment.end)}\t{one_line(segment.text).strip()}"
        + (f"\t{one_line(segment.speaker or '')}\n" if with_speakers else "\n")
        for segment in transcript.segments
    )
