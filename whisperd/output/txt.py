"""The format txt: one line of text for each segment, as the `whisper` command writes it.

Where channels are speakers, `Speaker 1: ` stands before each line. An empty segment keeps its empty line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.output.text import one_line, speaker_label

if TYPE_CHECKING:
    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import About, Transcript


def write(transcript: Transcript, _options: OutputOptions, _about: About) -> str:
    """Return the text of the file."""
    return "".join(
        f"{speaker_label(segment.speaker)}{one_line(segment.text).strip()}\n" for segment in transcript.segments
    )
