"""Divides a transcript into units: words with their times, between which a line may be broken.

A unit is a word with its punctuation; in scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) it is a
character with the marks that must not be separated from it. The times of words come from the engine where it gives them;
else the time of the segment is divided by the width of the text.

What one speaker says is one stream of units, in which times never go backward. Where a sentence crosses two windows, which
the engine transcribes separately, the stream is repaired: see `_sewn`.
"""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from whisperd.output.phrases import function_words
from whisperd.output.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from whisperd.core.transcript import About, Segment, Transcript

LONG_PAUSE_SECONDS = 2.0  # ends a sentence, whatever its punctuation
HEADING_PAUSE_SECONDS = 0.7  # ends a sentence without a full stop, if a capital follows
SENTENCE_COLUMNS_MAX = 900  # of a text without punctuation; then its sentence ends with the segment
SEAM_SECONDS = 0.3  # at most, between two windows that were cut within a sentence
LONG_WORD = 4  # letters; "had had" and "very very" are meant

# Scripts without spaces between words. Korean has spaces.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u2e80-\u2fdf\u3001-\u30ff\u3100-\u312f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uff66-\uff9f\U00020000-\U0003ffff"
)
_SPACE = "[^\\S\u00a0\u202f\u2007]"  # all but those that forbid a break
_TOKEN = re.compile(f"({_SPACE}*)([{_UNSPACED}]|[^\\s{_UNSPACED}\u00a0\u202f\u2007]+|[\u00a0\u202f\u2007]+)")
_UNSPACED_CHAR = re.compile(f"[{_UNSPACED}]")
_JOINERS = "\u200d\u00a0\u202f\u2007"

# Unicode's line breaking classes CL, CP, EX, IS, NS and OP, as far as they are met in speech (UAX 14; JIS X 4051).
_CLOSING = frozenset(
    ".,;:!?%…‰)]}»”’›、。，．・：；？！」』】〉》〕）］｝〞〟ー々〻ゝゞヽヾぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶ％‼⁇⁈⁉"
    "ะาำๅๆฯະາຳໆ។៕၊။،؛؟۔।॥-–—"
)
_OPENING = frozenset("([{«“‘‹「『【〈《〔（［｛¿¡〝เแโใไເແໂໃໄ")
_DASHES = frozenset("-–—")
_ENDS = ".!?…。！？．؟۔।॥។။‼⁇⁈⁉"
_QUOTES = "\"'»”’›)]}」』】〉》〕）］｝"
_SENTENCE_END = re.compile(f"[{re.escape(_ENDS)}][{re.escape(_QUOTES + _ENDS)} \u00a0\u202f]*$")
_WIDE_END = re.compile(f"[。！？．。！？‼⁇⁈⁉។။][{re.escape(_QUOTES)}]*$")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'«“‘„])(?:\w|mr|mrs|ms|dr|prof|st|sr|jr|vs|vol|fig|ca|approx|dept|gen|gov|rev|hon|capt|col|lt|sgt|"
    r"z\.b|d\.h|u\.a|bzw|nr|tel|abs|str|hr|fr|m|mm|mme|mlle|av|p\.ex|sra|srta|ud|uds|pág|sig|dott|ing|avv|pag|"
    r"e\.g|i\.e|u\.s|u\.k|\d{1,2})\.$",
    re.IGNORECASE,
)


class Unit(NamedTuple):
    """A word or character that stands in one line.

    Attributes:
        text: without space around it.
        space: what stands between it and the unit before it in a line: a space or nothing.
        start: in seconds from the start of the recording.
        end: in seconds; at most the start of the next unit of the speaker.
        columns: its width in a terminal: East Asian wide characters are 2 wide (UAX 11).
        segment: index of its segment in the transcript.
        probability: of the least certain of its words; None if its times are estimated.
        language: the code of the language in which it is written.
    """

    text: str
    space: str
    start: float
    end: float
    columns: int
    segment: int
    probability: float | None = None
    language: str = ""


def columns(text: str) -> int:
    """How wide a text is: 2 for an East Asian wide character, 0 for a combining mark, else 1."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(char: str) -> int:
    if unicodedata.east_asian_width(char) in "WF":
        return 2
    return 0 if unicodedata.category(char) in {"Mn", "Me", "Cf"} else 1


def is_wide(text: str) -> bool:
    """Whether most of a text is in wide characters, so that its lines hold fewer of them."""
    return columns(text) > 1.3 * len(text)


def is_unspaced(text: str) -> bool:
    """Whether a text begins in a script without spaces between words."""
    return bool(_UNSPACED_CHAR.match(text))


def clusters(text: str) -> Iterator[str]:
    """Yield the characters of a text, each with the marks and joined characters after it."""
    cluster = ""
    for char in text:
        if cluster and (_columns(char) == 0 or cluster[-1] == "\u200d"):
            cluster += char
        else:
            if cluster:
                yield cluster
            cluster = char
    if cluster:
        yield cluster


def text_of(units: Iterable[Unit]) -> str:
    """The text of units in one line."""
    return "".join(f"{unit.space}{unit.text}" for unit in units).strip()


def language_of(transcript: Transcript, about: About) -> str:
    """The code of the language in which the text is written: that of a translation is English."""
    return "en" if about.task == "translate" else transcript.language


def streams(transcript: Transcript, language: str) -> dict[str | None, list[Unit]]:
    """Return what each speaker says, in the order in which they begin; None stands for speakers who are not told apart."""
    spoken: dict[str | None, list[Unit]] = {}
    for index, segment in enumerate(transcript.segments):
        # a translation is in one language, whatever was spoken
        own = (segment.language or language) if language == transcript.language else language
        units = [unit._replace(language=own) for unit in _units(segment, index)]
        if not units:
            continue
        stream = spoken.setdefault(segment.speaker, [])
        if stream:
            before = transcript.segments[stream[-1].segment]
            first = units[0]
            is_seam = before.seek != segment.seek and before.language == segment.language
            if is_seam and first.start - stream[-1].end < LONG_PAUSE_SECONDS:
                last, first_units = _sewn(stream[-1], units, function_words(own))
                stream[-1] = stream[-1] if before.is_edited else last
                units = units if segment.is_edited else first_units
            if units:
                units[0] = units[0]._replace(space=_space_between(stream[-1].text, units[0].text))
        stream += units
    return {speaker: list(_forward(units)) for speaker, units in spoken.items() if units}


def ends_sentence(units: Sequence[Unit], index: int) -> bool:
    """Whether a sentence ends after the unit with this index."""
    if index + 1 >= len(units):
        return True
    unit, after = units[index], units[index + 1]
    pause = after.start - unit.end
    if pause >= LONG_PAUSE_SECONDS:
        return True
    first = next((char for char in after.text if char.isalnum()), "")
    if not _SENTENCE_END.search(unit.text):
        return unit.segment != after.segment and first.isupper() and pause >= HEADING_PAUSE_SECONDS
    if _WIDE_END.search(unit.text):
        return after.text[0] not in _CLOSING
    return not first.islower() and not (_ABBREVIATION.search(unit.text) and pause < HEADING_PAUSE_SECONDS)


def is_finished(text: str) -> bool:
    """Whether a text ends with the punctuation of a sentence."""
    return bool(_SENTENCE_END.search(text))


def _units(segment: Segment, index: int) -> Iterator[Unit]:
    """The units of one segment; the first has no space before it."""
    words = [word for word in segment.words or () if one_line(word.text).strip()]
    timed = [(word.start, word.end, one_line(word.text), word.probability) for word in words]
    known: list[tuple[float, float, str, float | None]] = [*timed] or [
        (segment.start, segment.end, one_line(segment.text), None)
    ]
    unit: Unit | None = None
    pending = ""
    for begin, finish, text, probability in known:
        start, end = _seconds(begin), _seconds(finish)
        tokens = _TOKEN.findall(text)
        if not tokens:
            continue
        tokens[0] = (pending or tokens[0][0], tokens[0][1])
        pending = " " if text[-1:].isspace() else ""
        widths = [max(1, columns(token)) for _, token in tokens]
        edges = [start + (end - start) * share / sum(widths) for share in itertools.accumulate(widths, initial=0)]
        for (space, token), (since, until) in zip(tokens, itertools.pairwise(edges), strict=True):
            if unit is not None and not _may_break(unit.text, space, token):
                unit = unit._replace(
                    text=f"{unit.text}{' ' if space else ''}{token}",
                    end=max(unit.end, until),
                    probability=_least(unit.probability, probability),
                )
                continue
            if unit is not None:
                yield unit._replace(columns=columns(unit.text))
            unit = Unit(token, " " if space and unit else "", since, until, 0, index, probability)
    if unit is not None and unit.text.strip():
        yield unit._replace(columns=columns(unit.text))


def _may_break(before: str, space: str, token: str) -> bool:
    """Whether a line may be broken between a unit and the token after it."""
    if before[-1] in _JOINERS or token[0] in _JOINERS or _columns(token[0]) == 0:
        return False
    if space and token in _DASHES and _SENTENCE_END.search(before):
        return True  # it begins what somebody else says
    if all(char in _CLOSING or not char.isprintable() for char in token):
        return False
    if before in _DASHES or (before[-1] in _OPENING and (not space or len(before) == 1)):
        return False
    if space:
        return True
    return (is_unspaced(token) or is_unspaced(before[-1])) and token[0] not in _CLOSING


def _space_between(before: str, after: str) -> str:
    """What stands between two segments in a line: in scripts without spaces a space replaces the missing comma."""
    if not (is_unspaced(before[-1]) and is_unspaced(after)):
        return " "
    return "" if unicodedata.category(before[-1]).startswith("P") else " "


def _sewn(last: Unit, units: list[Unit], words: frozenset[str]) -> tuple[Unit, list[Unit]]:
    """Repair the text where one window ends and the next begins: the last unit there, and the units here.

    The engine hears each window as if it began and ended with a sentence. What is changed cannot be meant: dots before a
    small letter, a small letter after a full stop, a capital of a small word such as "the" where no sentence has ended, and
    a word of at least four letters in both windows, if they were cut within it.
    """
    first = units[0]
    is_cut = first.start - last.end < SEAM_SECONDS
    bare = re.sub(r"[\W_]+$", "", last.text)
    is_repeated = len(bare) >= LONG_WORD and bare.casefold() == re.sub(r"[\W_]+$", "", first.text).casefold()
    if is_cut and is_repeated and len(units) > 1:
        return _with_text(last, bare)._replace(end=max(last.end, first.end)), units[1:]
    if first.text[0].islower() and re.search(r"\w(\.{3}|…)$", last.text):
        last = _with_text(last, last.text.rstrip(".…"))
    elif first.text[0].islower() and is_finished(last.text) and not _ABBREVIATION.search(last.text):
        units = [_with_text(first, first.text[0].upper() + first.text[1:]), *units[1:]]
    elif (
        first.text[0].isupper()
        and first.text.casefold() in words
        and (last.text[-1] == "," or (is_cut and not is_finished(last.text)))
    ):
        units = [_with_text(first, first.text[0].lower() + first.text[1:]), *units[1:]]
    return last, units


def _with_text(unit: Unit, text: str) -> Unit:
    return unit._replace(text=text, columns=columns(text))


def _forward(units: Iterable[Unit]) -> Iterator[Unit]:
    """The units with times that never go backward and do not overlap."""
    held: Unit | None = None
    for unit in units:
        start = max(unit.start, held.start) if held else unit.start
        if held:
            yield held._replace(end=min(held.end, start))
        held = unit._replace(start=start, end=max(unit.end, start))
    if held:
        yield held


def _seconds(seconds: float) -> float:
    return max(0.0, seconds) if math.isfinite(seconds * 1000) else 0.0


def _least(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else min(one, other)
