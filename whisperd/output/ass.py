r"""The format ass (Advanced SubStation Alpha): subtitles with a colour for each speaker, and karaoke where words have times.

In karaoke (`{\k50}word`) each word changes its colour when it is said; the number is the time in hundredths of a second until
the next one. Braces and backslashes of the text, which ASS cannot escape, become full-width ones. The format is described in
the source of libass (`ass_parse.c`) and in https://aegisub.org/docs/latest/ass_tags/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.output.subtitles import arrange
from whisperd.output.text import SPEAKER_COLOURS, milliseconds, one_line
from whisperd.output.units import language_of

if TYPE_CHECKING:
    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import About, Transcript
    from whisperd.output.subtitles import Subtitle

_STYLE_FIELDS = (
    "Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, "
    "ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding"
)
_MARKUP = str.maketrans({"{": "\uff5b", "}": "\uff5d", "\\": "\uff3c"})


def write(transcript: Transcript, options: OutputOptions, about: About) -> str:
    """Return the text of the file."""
    subtitles = arrange(transcript, options, language_of(transcript, about), overlap=True)
    speakers = list(dict.fromkeys(subtitle.parts[0].speaker for subtitle in subtitles))
    styles = {speaker: f"Speaker{number}" if speaker else "Default" for number, speaker in enumerate(speakers, start=1)}
    colours = {"Default": SPEAKER_COLOURS[0]} | {
        styles[speaker]: SPEAKER_COLOURS[number % len(SPEAKER_COLOURS)] for number, speaker in enumerate(speakers)
    }
    return "\n".join(
        [
            "[Script Info]",
            "; Made by whisperd",
            f"Title: {one_line(about.title).strip() or 'Transcript'}",
            "ScriptType: v4.00+",
            "PlayResX: 1280",
            "PlayResY: 720",
            "WrapStyle: 0",
            "ScaledBorderAndShadow: yes",
            "",
            "[V4+ Styles]",
            f"Format: {_STYLE_FIELDS}",
            *(_style(name, colour) for name, colour in colours.items()),
            "",
            "[Events]",
            "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text",
            *(_dialogue(subtitle, styles[subtitle.parts[0].speaker]) for subtitle in subtitles),
            "",
        ]
    )


def _style(name: str, colour: str) -> str:
    """White or the colour of a speaker when it is said, grey before; ASS writes blue, green, red."""
    said = f"&H00{colour[4:6]}{colour[2:4]}{colour[0:2]}".upper()
    return f"Style: {name},Arial,44,{said},&H00A0A0A0,&H00000000,&H80000000,0,0,0,0,100,100,0,0,1,2,1,2,60,60,40,1"


def _dialogue(subtitle: Subtitle, style: str) -> str:
    (part,) = subtitle.parts
    name = one_line(part.speaker or "").replace(",", " ").strip()
    lines = part.lines
    start = subtitle.start // 10
    times = [milliseconds(unit.start) // 10 for unit in part.units]
    is_karaoke = all(unit.probability is not None for unit in part.units)
    edges = [max(start, time) for time in times] + [max(start, subtitle.end // 10)]
    text = []
    if is_karaoke and edges[0] > start:
        text.append(f"{{\\k{edges[0] - start}}}")
    number = 0
    for row, line in enumerate(lines):
        for index, unit in enumerate(line):
            before = r"\N" if row and not index else unit.space if index else ""
            mark = f"{{\\k{max(0, edges[number + 1] - edges[number])}}}" if is_karaoke else ""
            text.append(f"{before}{mark}{unit.text.translate(_MARKUP)}")
            number += 1
    return f"Dialogue: 0,{_time(start)},{_time(subtitle.end // 10)},{style},{name},0,0,0,,{''.join(text)}"


def _time(hundredths: int) -> str:
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest // 100:02d}.{rest % 100:02d}"
