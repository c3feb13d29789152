"""The format html: a page that plays the recording along with its text, and opens by a double-click without a server.

The file contains everything except the recording, to which it has a relative link. Its policy (CSP level 3) allows one style
sheet and one script, by their hashes, and media from the page's own origin: nothing in the text or name of a recording can
run, and the page sends no request to the network. The words are in the page once, as text; the script reads the times from
attributes, so that the page is readable without it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import math
import re
from importlib import resources
from pathlib import PurePath
from string import Template
from typing import TYPE_CHECKING

from whisperd.core.display import clock
from whisperd.output import timeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import About, Segment, Transcript

UNSURE_PROBABILITY = 0.5  # of a word
UNSURE_LOGPROB = -1.0  # of a segment without words; openai-whisper's `logprob_threshold`
SPEAKER_COLOURS = 6  # classes w0 ... w5 of the style sheet
FILMS = frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".ogv", ".mpg", ".mpeg", ".ts", ".wmv", ".3gp"})

_INVISIBLE = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029], " ") | dict.fromkeys(
    (0x202D, 0x202E),  # direction overrides can reverse what a reader sees
    "\ufffd",
)
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_RENAMED = {"jw": "jv"}  # Whisper's code for Javanese is not in BCP 47


def write(transcript: Transcript, _options: OutputOptions, about: About) -> str:
    """Return the text of the page."""
    style, script = _asset("page.css"), _asset("page.js")
    length = max([_seconds(about.duration_seconds), *(_seconds(segment.end) for segment in transcript.segments)])
    spoken = [segment for segment in transcript.segments if _text(segment.text).strip()]
    speakers = {
        name: number
        for number, name in enumerate(dict.fromkeys(segment.speaker for segment in spoken if segment.speaker))
    }
    rows = "".join(_rows(spoken, speakers))
    return Template(_asset("page.html")).substitute(
        policy=html.escape(policy(style, script)),
        style=style,
        script=script,
        title=_escaped(about.title),
        facts=_facts(transcript, about, length),
        media=_media(about),
        original=html.escape(about.link),
        picture=timeline.draw(
            [(_seconds(s.start), _seconds(s.end), _colour(s, speakers) or "said") for s in spoken],
            list(_doubts(spoken)),
            about.heights,
            length,
        ),
        duration=_number(length),
        length=clock(length),
        language=html.escape(_language(transcript, about)),
        rows=rows or '<p class="silence" lang="en">Nothing is said in this recording.</p>\n',
        legend='Words <span class="low">underlined with dots</span> are those of which the model was unsure.',
        made=f"Made by whisperd with {_escaped(about.made_by)}.",
    )


def policy(style: str, script: str = "") -> str:
    """The Content-Security-Policy of a page with this one style sheet and this one script.

    `'self'` is the page's own origin; `file:` says the same to browsers that give a file no origin.
    """
    script_source = f" script-src {_hash(script)}; media-src 'self' file:;" if script else ""
    return f"default-src 'none'; style-src {_hash(style)};{script_source} base-uri 'none'; form-action 'none'"


def _rows(segments: Sequence[Segment], speakers: dict[str, int]) -> Iterator[str]:
    speaker = None
    for segment in segments:
        if segment.speaker and segment.speaker != speaker:
            yield f'<h2 class="who {_colour(segment, speakers)}" dir="auto">{_escaped(segment.speaker)}</h2>\n'
        speaker = segment.speaker
        start = _seconds(segment.start)
        yield (
            f'<p class="s" data-s="{_number(start)}"><a class="t" href="#t={_number(start)}">{clock(start)}</a> '
            f'<span class="x{_if(_is_unsure(segment), " low")}" dir="auto">{_words(segment)}</span></p>\n'
        )


def _words(segment: Segment) -> str:
    if not segment.words:
        return html.escape(_text(segment.text).strip())
    shown: list[str] = []
    for word in segment.words:
        text = _text(word.text)
        spoken = text.strip()
        if not spoken:
            continue
        unsure = word.probability < UNSURE_PROBABILITY
        mark = f' class="low" title="{100 * word.probability:.0f} % sure"' if unsure else ""
        space = _if(bool(shown) and text[0].isspace(), " ")
        shown.append(f'{space}<span data-s="{_number(_seconds(word.start))}"{mark}>{html.escape(spoken)}</span>')
    return "".join(shown) or html.escape(_text(segment.text).strip())


def _is_unsure(segment: Segment) -> bool:
    return not segment.words and segment.avg_logprob < UNSURE_LOGPROB


def _doubts(segments: Sequence[Segment]) -> Iterator[tuple[float, float]]:
    for segment in segments:
        if _is_unsure(segment):
            yield _seconds(segment.start), _seconds(segment.end)
        for word in segment.words or ():
            if word.probability < UNSURE_PROBABILITY:
                yield _seconds(word.start), _seconds(word.end)


def _colour(segment: Segment, speakers: dict[str, int]) -> str:
    return f"w{speakers[segment.speaker] % SPEAKER_COLOURS}" if segment.speaker else ""


def _media(about: About) -> str:
    kind = "video" if PurePath(about.link).suffix.lower() in FILMS else "audio"
    inline = _if(kind == "video", " playsinline")
    return f'<{kind} id="media" controls preload="metadata"{inline} src="{html.escape(about.link)}"></{kind}>'


def _facts(transcript: Transcript, about: About, length: float) -> str:
    facts = [clock(length)]
    code = _RENAMED.get(transcript.language, transcript.language)
    if _LANGUAGE.fullmatch(code):
        spoken = f'<span data-language="{code}">{code}</span>'
        facts.append(f"{spoken}, translated into English" if about.task == "translate" else spoken)
    facts.append(f'<time datetime="{html.escape(about.made_at)}">{html.escape(about.made_at[:10])}</time>')
    return " · ".join(facts)


def _language(transcript: Transcript, about: About) -> str:
    if about.task == "translate":
        return "en"
    code = _RENAMED.get(transcript.language, transcript.language)
    return code if _LANGUAGE.fullmatch(code) else ""


def _text(text: str) -> str:
    return text.translate(_INVISIBLE)


def _escaped(text: str) -> str:
    return html.escape(_text(text))


def _seconds(seconds: float) -> float:
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _number(seconds: float) -> str:
    return f"{seconds:.2f}".rstrip("0").rstrip(".")


def _if(condition: bool, text: str) -> str:
    return text if condition else ""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@functools.cache
def _asset(name: str) -> str:
    return (resources.files("whisperd.output") / name).read_text("utf-8")
