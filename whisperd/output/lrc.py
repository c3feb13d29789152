"""The format lrc: lyrics, one line at a time, for music players.

With `highlight_words` each word has its time too (the "enhanced" or A2 form). A line without text clears the display in a
long pause. Brackets before a digit become round ones, since players would read them as a time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from whisperd.output.subtitles import arrange
from whisperd.output.text import milliseconds, one_line
from whisperd.output.units import language_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import About, Transcript
    from whisperd.output.subtitles import Subtitle

CLEARED = 3000  # milliseconds without text, before which the display is cleared
_TIME = re.compile(r"[\[<](?=\d)")


def write(transcript: Transcript, options: OutputOptions, about: About) -> str:
    """Return the text of the file."""
    return "".join(f"{line}\n" for line in _lines(transcript, options, about))


def _lines(transcript: Transcript, options: OutputOptions, about: About) -> Iterator[str]:
    if about.title:
        yield f"[ti:{one_line(about.title).replace(']', ')')}]"
    yield "[re:whisperd]"
    if about.duration_seconds > 0:
        yield f"[length:{_time(round(about.duration_seconds * 1000))}]"
    single = options.evolve(max_line_count=1)
    last, start = None, 0
    for subtitle in arrange(transcript, single, language_of(transcript, about), overlap=False):
        if last is not None and subtitle.start - last.end >= CLEARED:
            yield f"[{_time(last.end)}]"
        start = max(start, milliseconds(subtitle.units[0].start))  # when it is said, not when one can best read it
        yield f"[{_time(start)}]{subtitle.parts[0].label}{_text(subtitle, options)}"
        last = subtitle
    if last is not None:
        yield f"[{_time(last.end)}]"


def _text(subtitle: Subtitle, options: OutputOptions) -> str:
    text = []
    for index, unit in enumerate(subtitle.units):
        is_timed = options.highlight_words and unit.probability is not None
        time = f"<{_time(milliseconds(unit.start))}>" if is_timed else ""
        text.append(f"{unit.space if index else ''}{time}{_TIME.sub('(', unit.text)}")
    return "".join(text)


def _time(milliseconds: int) -> str:
    """Minutes, which may be more than 59, seconds and hundredths: `61:02.50`."""
    minutes, hundredths = divmod(milliseconds // 10, 6000)
    return f"{minutes:02d}:{hundredths // 100:02d}.{hundredths % 100:02d}"
