"""The format html: a page that plays the recording along with its text, and opens by a double-click without a server.

The file contains everything except the recording, to which it has a relative link. Its policy (CSP level 3) allows one style
sheet and one script, by their hashes, and media from the page's own origin: nothing in the text or name of a recording can
run, and the page sends no request to the network. The words are in the page once, as text; the script reads the times from
attributes, so that the page is readable without it. A row is a paragraph (`p.s`), in which each sentence (`.q`) and each word,
or piece of a sentence whose words have no times, has its own time. `data-g` says with which segment of the recorded
transcript a piece begins to belong, `data-e` when that segment ends: by these the page makes corrections of segments.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import itertools
import math
import re
from importlib import resources
from pathlib import PurePath
from string import Template
from typing import TYPE_CHECKING, Any

from whisperd.core.display import clock
from whisperd.core.transcript import GAP_REASONS
from whisperd.output.prose import paragraphs
from whisperd.output.units import language_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import About, Segment, Transcript
    from whisperd.output.prose import Sentence

UNSURE_PROBABILITY = 0.5  # of a word
UNSURE_LOGPROB = -1.0  # of a segment without words; openai-whisper's `logprob_threshold`
SPEAKER_COLOURS = 6  # classes w0 ... w5 of the style sheet
FILMS = frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".ogv", ".mpg", ".mpeg", ".ts", ".wmv", ".3gp"})

WIDTH, HEIGHT = 1200, 100  # units of the view box of the picture
BARS = 240  # of the picture where no heights are given
_SPEECH_HEIGHT, _SILENCE_HEIGHT = 45, 6  # where the loudness is not known
_GAP = 0.35  # of a bar
_STRIP = 5  # height of the line below the bars that marks unsure places

_INVISIBLE = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029], " ") | dict.fromkeys(
    (0x202D, 0x202E),  # direction overrides can reverse what a reader sees
    "\ufffd",
)
_IN_DONE = re.compile(r"\.\./((?:\.\./)*)done/")
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_RENAMED = {"jw": "jv"}  # Whisper's code for Javanese is not in BCP 47


class SegmentMarks:
    """The attributes that say to which segment the pieces of the page belong, in the order of the page."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._seen: set[int] = set()
        self._last = -1

    def of(self, index: int) -> str:
        """The attributes of a piece; none if it belongs to the same segment as the one before."""
        if index == self._last:
            return ""
        self._last = index
        end = _if(index not in self._seen, f' data-e="{_number(_seconds(self._transcript.segments[index].end))}"')
        self._seen.add(index)
        return f' data-g="{index}"{end}'


def write(transcript: Transcript, options: OutputOptions, about: About) -> str:
    """Return the text of the page."""
    style, script = _asset("page.css"), _asset("page.js") + _asset("edit.js")
    length = max([_seconds(about.duration_seconds), *(_seconds(segment.end) for segment in transcript.segments)])
    spoken = [segment for segment in transcript.segments if _text(segment.text).strip()]
    speakers = {
        name: number
        for number, name in enumerate(dict.fromkeys(segment.speaker for segment in spoken if segment.speaker))
    }
    rows = "".join(_rows(transcript, language_of(transcript, about), speakers))
    return Template(_asset("page.html")).substitute(
        policy=html.escape(policy(style, script)),
        style=style,
        script=script,
        title=_escaped(about.title),
        facts=_facts(transcript, about, length),
        media=_media(about),
        original=html.escape(about.link),
        picture=_picture(
            [(_seconds(s.start), _seconds(s.end), _colour(s.speaker, speakers) or "said") for s in spoken],
            list(_doubts(spoken)),
            about.heights,
            length,
        ),
        duration=_number(length),
        length=clock(length),
        language=html.escape(_language(transcript, about)),
        transcript=_if(bool(about.recorded_sha256), f"sha256:{about.recorded_sha256}"),
        key=about.recorded_sha256 or hashlib.sha256(rows.encode("utf-8", "replace")).hexdigest(),
        overview=_overview(about.link),
        formats=" ".join(kind for kind in options.formats if kind != "html"),
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


def _rows(transcript: Transcript, language: str, speakers: dict[str, int]) -> Iterator[str]:
    """A row for each paragraph, with a heading where the speaker changes."""
    speaker = spoken = None
    marks = SegmentMarks(transcript)
    gaps = list(transcript.quality.get("gaps", ()))
    for paragraph in paragraphs(transcript, language):
        if paragraph.speaker and paragraph.speaker != speaker:
            colour = _colour(paragraph.speaker, speakers)
            yield f'<h2 class="who {colour}" dir="auto">{_escaped(paragraph.speaker)}</h2>\n'
        speaker = paragraph.speaker
        start, code = paragraph.start, _code(paragraph.language or "")
        while gaps and gaps[0]["from"] < start:
            yield _gap(gaps.pop(0))
        if code and code != spoken:
            yield f'<p class="soft" lang="en" data-language="{code}">{code}</p>\n'
        spoken = code
        lang = _if(bool(code) and language == transcript.language, f' lang="{code}"')  # a translation is English
        sentences = "".join(
            _if(bool(number), sentence.units[0].space) + _sentence(sentence, transcript, marks)
            for number, sentence in enumerate(paragraph.sentences)
        )
        yield (
            f'<p class="s" data-s="{_number(start)}"><a class="t" href="#t={_number(start)}">{clock(start)}</a> '
            f'<span class="x"{lang} dir="auto">{sentences}</span></p>\n'
        )
    yield from map(_gap, gaps)


def _gap(gap: dict[str, Any]) -> str:
    """A line that says where text is missing, or cannot be trusted."""
    start, end = _seconds(gap["from"]), _seconds(gap["to"])
    why = GAP_REASONS.get(gap["why"], "")
    return (
        f'<p class="gap soft" lang="en"><a href="#t={_number(start)}">{clock(start)}</a>\u2013{clock(end)}: {why}</p>\n'
    )


def _overview(link: str) -> str:
    """A link back to the overview page, if the link to the recording shows that this page is in an outbox."""
    found = _IN_DONE.match(link)
    return f'<p class="facts"><a href="{found[1]}index.html">All transcripts</a></p>\n' if found else ""


def _sentence(sentence: Sentence, transcript: Transcript, segments: SegmentMarks) -> str:
    """A sentence, with a mark for each word, or for each segment whose words have no times."""
    marks: list[str] = []
    for _, found in itertools.groupby(
        enumerate(sentence.units), lambda unit: unit[0] if unit[1].probability is not None else -1 - unit[1].segment
    ):
        units = [unit for _, unit in found]
        first = units[0]
        if first.probability is None:
            mark = _if(_is_unsure(transcript.segments[first.segment]), ' class="low"')
        else:
            unsure = first.probability < UNSURE_PROBABILITY
            mark = _if(unsure, f' class="low" title="{100 * first.probability:.0f} % sure"')
        space = _if(bool(marks), first.space)
        mark = segments.of(first.segment) + mark
        marks.append(f'{space}<span data-s="{_number(first.start)}"{mark}>{_escaped(text_of(units))}</span>')
    return f'<span class="q" data-s="{_number(sentence.start)}">{"".join(marks)}</span>'


def _is_unsure(segment: Segment) -> bool:
    return not segment.words and segment.avg_logprob < UNSURE_LOGPROB


def _doubts(segments: Sequence[Segment]) -> Iterator[tuple[float, float]]:
    for segment in segments:
        if _is_unsure(segment):
            yield _seconds(segment.start), _seconds(segment.end)
        for word in segment.words or ():
            if word.probability < UNSURE_PROBABILITY:
                yield _seconds(word.start), _seconds(word.end)


def _colour(speaker: str | None, speakers: dict[str, int]) -> str:
    return f"w{speakers[speaker] % SPEAKER_COLOURS}" if speaker else ""


def _picture(
    regions: Sequence[tuple[float, float, str]],
    doubts: Sequence[tuple[float, float]],
    heights: Sequence[int],
    duration_seconds: float,
) -> str:
    """Draw the recording as an `<svg>`: how loud it is, who speaks where, and where the model was unsure.

    Its size does not depend on the length of the recording.

    Args:
        regions: start and end in seconds of each spoken text, and a class name: `said`, or that of the speaker.
        doubts: start and end in seconds of unsure places.
        heights: 0-100, one for each bar; empty: not known.
        duration_seconds: of the recording.
    """
    count = len(heights) or BARS
    kinds = _spread(regions, count, duration_seconds)
    if not heights:
        heights = [_SPEECH_HEIGHT if kind else _SILENCE_HEIGHT for kind in kinds]
    bars: dict[str, list[str]] = {}
    for index, (kind, height) in enumerate(zip(kinds, heights, strict=True)):
        bars.setdefault(kind, []).append(_bar(index, count, height))
    paths = [f'<path class="{f"wave {kind}".strip()}" d="{"".join(drawn)}"/>' for kind, drawn in sorted(bars.items())]
    if doubts:
        marked = _spread([(start, end, "x") for start, end in doubts], WIDTH // 2, duration_seconds)
        strips = (
            f"M{start * 2} {HEIGHT - _STRIP}h{(end - start) * 2}v{_STRIP}h-{(end - start) * 2}z"
            for start, end in _runs(marked)
        )
        paths.append(f'<path class="doubts" d="{"".join(strips)}"/>')
    label = "Loudness along the recording; what is spoken is darker, unsure places are underlined"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f"{''.join(paths)}</svg>"
    )


def _spread(regions: Iterable[tuple[float, float, str]], count: int, duration_seconds: float) -> list[str]:
    """For each of `count` equal parts of the recording, the class of a region that touches it, or an empty string."""
    parts = [""] * count
    if duration_seconds > 0:
        for start, end, kind in regions:
            first = min(max(0, int(start / duration_seconds * count)), count - 1)
            last = min(max(first, int(end / duration_seconds * count - 1e-9)), count - 1)
            parts[first : last + 1] = [kind] * (last + 1 - first)
    return parts


def _runs(parts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield start and end of each run of marked parts."""
    start = None
    for index, part in enumerate([*parts, ""]):
        if part and start is None:
            start = index
        elif not part and start is not None:
            yield start, index
            start = None


def _bar(index: int, count: int, height: int) -> str:
    width = WIDTH / count
    tall = max(2.0, height / 100 * (HEIGHT - 2 * _STRIP - 4))
    top = (HEIGHT - 2 * _STRIP - tall) / 2 + 2
    return f"M{index * width:g} {top:g}h{width * (1 - _GAP):g}v{tall:g}h-{width * (1 - _GAP):g}z"


def _media(about: About) -> str:
    kind = "video" if PurePath(about.link).suffix.lower() in FILMS else "audio"
    inline = _if(kind == "video", " playsinline")
    return f'<{kind} id="media" controls preload="metadata"{inline} src="{html.escape(about.link)}"></{kind}>'


def _facts(transcript: Transcript, about: About, length: float) -> str:
    facts = [clock(length)]
    seconds: dict[str, float] = {}
    for start, end, language in transcript.languages():
        seconds[language] = seconds.get(language, 0.0) + _seconds(end) - _seconds(start)
    most = sorted(seconds or [transcript.language], key=lambda language: -seconds.get(language, 0.0))
    codes = [code for code in map(_code, most) if code]
    if codes:
        spoken = ", ".join(f'<span data-language="{code}">{code}</span>' for code in codes)
        facts.append(f"{spoken}, translated into English" if about.task == "translate" else spoken)
    facts.append(f'<time datetime="{html.escape(about.made_at)}">{html.escape(about.made_at[:10])}</time>')
    return " · ".join(facts)


def _language(transcript: Transcript, about: About) -> str:
    if about.task == "translate":
        return "en"
    return _code(transcript.language)


def _code(language: str) -> str:
    """Whisper's code for a language as BCP 47 has it; empty if it is none."""
    code = _RENAMED.get(language, language)
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
