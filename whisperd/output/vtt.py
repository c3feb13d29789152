"""The format vtt (WebVTT): subtitles for web pages.

`&` and `<` of the text are written as `&amp;` and `&lt;`; the `<u>` of `highlight_words` stays markup. Where channels are
speakers, `<v Speaker 1>` stands before each cue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.output.cues import lay_out, timestamp
from whisperd.output.text import one_line

if TYPE_CHECKING:
    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import About, Transcript


def write(transcript: Transcript, options: OutputOptions, _about: About) -> str:
    """Return the text of the file."""
    cues = lay_out(transcript, options, escape=_escaped, label=_voice)
    return "WEBVTT\n\n" + "".join(
        f"{timestamp(cue.start, '.')} --> {timestamp(cue.end, '.')}\n{cue.text}\n\n" for cue in cues
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _voice(speaker: str | None) -> str:
    return "" if speaker is None else f"<v {_escaped(one_line(speaker)).replace('>', '&gt;')}>"
