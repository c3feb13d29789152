"""The format txt: paragraphs of sentences, with an empty line between two; `layout: raw` has a line for each segment.

Where speakers are told apart, `Speaker 1: ` stands where somebody begins to speak, in raw text before each line. An empty
segment keeps its empty line in raw text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.core.display import clock
from whisperd.output.prose import paragraphs
from whisperd.output.text import one_line, speaker_label
from whisperd.output.units import language_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import About, Transcript


def write(transcript: Transcript, options: OutputOptions, about: About) -> str:
    """Return the text of the file."""
    if options.layout == "raw":
        return "".join(
            f"{speaker_label(segment.speaker)}{one_line(segment.text).strip()}\n" for segment in transcript.segments
        )
    return "\n".join(_paragraphs(transcript, options, language_of(transcript, about)))


def _paragraphs(transcript: Transcript, options: OutputOptions, language: str) -> Iterator[str]:
    last = None
    for paragraph in paragraphs(transcript, language):
        time = f"[{clock(paragraph.start)}] " if options.paragraph_times else ""
        label = speaker_label(paragraph.speaker) if paragraph.speaker != last else ""
        yield f"{time}{label}{paragraph.text}\n"
        last = paragraph.speaker
