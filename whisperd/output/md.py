"""The format md (Markdown): front matter, then paragraphs, each with its time and speaker in bold.

The front matter is YAML between two lines of dashes, as Jekyll, Hugo, Pandoc and Obsidian read it. Characters that Markdown
would read as markup get a backslash (CommonMark 0.31, section 2.4), so that the text is shown as it was said.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import yaml

from whisperd.core.display import clock
from whisperd.output.prose import paragraphs
from whisperd.output.text import encodable, one_line
from whisperd.output.units import language_of

if TYPE_CHECKING:
    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import About, Transcript

_MARKUP = re.compile(r"[\\`*_{}\[\]<>#~|&$!]")


def write(transcript: Transcript, _options: OutputOptions, about: About) -> str:
    """Return the text of the file."""
    language = language_of(transcript, about)
    said = list(paragraphs(transcript, language))
    title = _plain(about.title)
    facts = {
        "title": title,
        "date": about.made_at,
        "duration_seconds": round(max([about.duration_seconds, *(paragraph.end for paragraph in said)]), 2),
        "language": _plain(language),
        "speakers": list(dict.fromkeys(_plain(each.speaker) for each in said if each.speaker)),
        "made_by": _plain(about.made_by),
    }
    known = {key: value for key, value in facts.items() if value}
    front = yaml.safe_dump(known, allow_unicode=True, sort_keys=False, width=10_000)
    parts = [f"---\n{front}---\n"]
    if title:
        parts.append(f"# {_escaped(title)}\n")
    for paragraph in said:
        speaker = f" {_escaped(_plain(paragraph.speaker))}:" if paragraph.speaker else ""
        parts.append(f"**{clock(paragraph.start)}{speaker}** {_escaped(paragraph.text)}\n")
    return "\n".join(parts)


def _plain(text: str) -> str:
    return encodable(one_line(text)).strip()


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\g<0>", text)
