"""The format srt: numbered subtitles, for players and video editors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.output.cues import lay_out, timestamp
from whisperd.output.text import speaker_label

if TYPE_CHECKING:
    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import About, Transcript


def write(transcript: Transcript, options: OutputOptions, _about: About) -> str:
    """Return the text of the file; where channels are speakers, `Speaker 1: ` stands before each cue."""
    cues = lay_out(transcript, options, escape=str, label=speaker_label)
    return "".join(
        f"{number}\n{timestamp(cue.start, ',', hours=True)} --> {timestamp(cue.end, ',', hours=True)}\n{cue.text}\n\n"
        for number, cue in enumerate(cues, start=1)
    )
