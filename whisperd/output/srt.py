"""The format srt: numbered subtitles, for players and video editors.

What speakers say at the same time is one subtitle with a line for each, since players show subtitles of srt one at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.output.cues import lay_out, timestamp
from whisperd.output.text import speaker_label
from whisperd.output.units import language_of

if TYPE_CHECKING:
    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import About, Transcript


def write(transcript: Transcript, options: OutputOptions, about: About) -> str:
    """Return the text of the file; where speakers are told apart, `Speaker 1: ` stands where they change."""
    language = language_of(transcript, about)
    cues = lay_out(transcript, options, language, overlap=False, escape=str, label=speaker_label)
    return "".join(
        f"{number}\n{timestamp(cue.start, ',', hours=True)} --> {timestamp(cue.end, ',', hours=True)}\n{cue.text}\n\n"
        for number, cue in enumerate(cues, start=1)
    )
