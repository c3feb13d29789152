"""The format vtt (WebVTT): subtitles for web pages.

`&` and `<` of the text are written as `&amp;` and `&lt;`; the `<u>` of `highlight_words` stays markup. Where channels are
speakers, `<v Speaker 1>` stands before each cue, and a style gives each speaker a colour (https://www.w3.org/TR/webvtt1/,
section 8.2), except with `layout: raw`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.output.cues import lay_out, timestamp
from whisperd.output.text import SPEAKER_COLOURS, encodable, one_line
from whisperd.output.units import language_of

if TYPE_CHECKING:
    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import About, Transcript


def write(transcript: Transcript, options: OutputOptions, about: About) -> str:
    """Return the text of the file."""
    language = language_of(transcript, about)
    cues = lay_out(transcript, options, language, overlap=True, escape=_escaped, label=_voice)
    style = _style(transcript) if options.layout == "readable" else ""
    return f"WEBVTT\n\n{style}" + "".join(
        f"{timestamp(cue.start, '.')} --> {timestamp(cue.end, '.')}\n{cue.text}\n\n" for cue in cues
    )


def _style(transcript: Transcript) -> str:
    speakers = list(dict.fromkeys(segment.speaker for segment in transcript.segments if segment.speaker))
    if not speakers:
        return ""
    rules = [
        f'::cue(v[voice="{_css(speaker)}"]) {{ color: #{SPEAKER_COLOURS[number % len(SPEAKER_COLOURS)]}; }}\n'
        for number, speaker in enumerate(speakers)
    ]
    return f"STYLE\n{''.join(rules)}\n"


def _css(name: str) -> str:
    """A name as a player has it after it has read the voice, in a CSS string (CSS Syntax 3, section 2.1)."""
    plain = " ".join(encodable(one_line(name)).split())
    return "".join(char if char.isalnum() or char == " " else f"\\{ord(char):x} " for char in plain)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _voice(speaker: str | None) -> str:
    return "" if speaker is None else f"<v {_escaped(one_line(speaker)).replace('>', '&gt;')}>"
