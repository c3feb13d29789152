"""The format docx: a document for word processors, by python-docx (the extra `docx`).

A paragraph has its time and, where it changes, its speaker before it.
"""

from __future__ import annotations

import datetime as dt
import io
import re
import zipfile
from typing import TYPE_CHECKING

from whisperd.core.display import clock
from whisperd.output.prose import paragraphs
from whisperd.output.text import one_line
from whisperd.output.units import language_of

if TYPE_CHECKING:
    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import About, Transcript

_NOT_IN_XML = re.compile(r"[^\t\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2
_TITLE_MAX = 255  # characters of a property, by Office Open XML


def write(transcript: Transcript, _options: OutputOptions, about: About) -> bytes:
    """Return the content of the file."""
    import docx  # noqa: PLC0415  # an extra; loading it takes as long as the rest of the worker's rendering
    from docx.oxml import OxmlElement  # noqa: PLC0415
    from docx.oxml.ns import qn  # noqa: PLC0415
    from docx.shared import RGBColor  # noqa: PLC0415

    language = language_of(transcript, about)
    document = docx.Document()
    title = _plain(about.title)
    properties = document.core_properties
    properties.title, properties.author, properties.comments = title[:_TITLE_MAX], "whisperd", ""
    properties.language = _plain(language)[:_TITLE_MAX]
    if about.made_at:
        properties.created = properties.modified = dt.datetime.fromisoformat(about.made_at)
    spelling = OxmlElement("w:lang")
    spelling.set(qn("w:val"), _plain(language))
    document.styles["Normal"].element.get_or_add_rPr().append(spelling)
    if title:
        document.add_heading(title, level=1)
    speaker = None
    for said in paragraphs(transcript, language):
        paragraph = document.add_paragraph()
        time = paragraph.add_run(f"{clock(said.start)}  ")
        time.font.color.rgb = RGBColor(0x76, 0x70, 0x66)
        if said.speaker and said.speaker != speaker:
            paragraph.add_run(f"{_plain(said.speaker)}: ").bold = True
        speaker = said.speaker
        paragraph.add_run(_plain(said.text))
    file = io.BytesIO()
    document.save(file)
    return _undated(file)


def _undated(archive: io.BytesIO) -> bytes:
    """Write a zip archive again without the time of day: the same transcript gives the same bytes, so a digest tells if it was edited."""
    result = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as target:
        for part in source.infolist():
            target.writestr(zipfile.ZipInfo(part.filename), source.read(part), zipfile.ZIP_DEFLATED)
    return result.getvalue()


def _plain(text: str) -> str:
    return _NOT_IN_XML.sub("\ufffd", one_line(text)).strip()
