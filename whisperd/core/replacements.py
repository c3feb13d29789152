r"""Replaces wrong words of a transcript by the right ones; every word keeps its times.

A wrong text is a literal, which is found where it stands as a whole word, or a pattern between slashes, such as `/colou?r/`,
in the syntax of the library `regex`; its right text may name groups (`\1`). Replacements are applied in their order, each to
what the one before has left, within one segment.

Anybody who may write a ticket may write a pattern, and a bad one can take longer than the universe exists. So a pattern has at
most `TEXT_MAX` characters, is compiled when the option is read, and has `PATTERN_SECONDS` for a whole transcript, all together
`TOTAL_SECONDS`: what is not replaced by then stays as it was recorded, and the report says so.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import time
from typing import TYPE_CHECKING, Any

from whisperd.core.transcript import RecordedText, Replaced, Word

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from whisperd.core.transcript import Segment, Transcript

TEXT_MAX = 200  # characters of a wrong text, and of a right one
REPLACEMENTS_MAX = 500
PATTERN_SECONDS = 2.0
TOTAL_SECONDS = 10.0

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Thai, Lao, Burmese, Khmer, Japanese and Chinese have no spaces between words, and Korean joins particles to them.
_JOINED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f"
    r"\U00020000-\U0003ffff]"
)
_PIECE = re.compile(r"\s*\S+")

Match = tuple[int, int, str]  # start and end in a text, and what comes there


def problem(wrong: str, right: str) -> str | None:
    """Say why a replacement cannot be used; None if it can."""
    if not wrong.strip() or wrong == "//":
        return "the wrong text is empty"
    for text in (wrong, right):
        if len(text) > TEXT_MAX:
            return f"has more than {TEXT_MAX} characters"
        if _CONTROLS.search(text):
            return "must not contain line breaks or control characters"
    if not is_pattern(wrong):
        return None
    regex = _regex()
    try:
        pattern = regex.compile(wrong[1:-1])
        # the empty branch matches for certain: only a match shows whether the right text names a group that is not there
        regex.compile(f"{wrong[1:-1]}|").sub(right, "")
        if pattern.match("", timeout=PATTERN_SECONDS) is not None:
            return "the pattern matches where nothing is written"
    except TimeoutError:
        return "the pattern takes too long"
    except (regex.error, IndexError, RecursionError) as error:
        return f"the pattern is wrong: {error or 'it is nested too deeply'}"
    return None


def is_pattern(wrong: str) -> bool:
    """Whether a wrong text is a pattern: it stands between slashes."""
    return len(wrong) > 2 and wrong.startswith("/") and wrong.endswith("/")  # noqa: PLR2004  # two slashes


def correct(transcript: Transcript, replacements: Mapping[str, str]) -> Transcript:
    """Return the transcript with all replacements made and reported; a segment that changes keeps what was recorded.

    What a person has written in place of a segment stays as it is.

    Args:
        transcript: as the engine made it.
        replacements: right texts by wrong ones; each has passed `problem`.
    """
    if not replacements:
        return transcript
    time_left = _TimeLeft(TOTAL_SECONDS)
    rules = [_Rule(wrong, right, time_left) for wrong, right in replacements.items()]
    segments = tuple(each if each.is_edited else _corrected(each, rules) for each in transcript.segments)
    report = tuple(rule.report() for rule in rules)  # before the whole text is counted a second time
    text = "".join(segment.text for segment in segments)
    if transcript.text != "".join(segment.text for segment in transcript.segments):
        text = transcript.text
        for rule in rules:
            text = _spliced(text, rule.find(text))
    return dataclasses.replace(transcript, text=text, segments=segments, replacements=report)


class _TimeLeft:
    """What is left of a time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class _Rule:
    """One replacement, with its count and what is left of its time, and of that of all."""

    def __init__(self, wrong: str, right: str, total: _TimeLeft) -> None:
        self._wrong = wrong
        self._right = right
        self._pattern: Any = _regex().compile(wrong[1:-1]) if is_pattern(wrong) else _literal(wrong)
        self._own, self._total = _TimeLeft(PATTERN_SECONDS), total
        self._is_complete = True
        self.count = 0

    def report(self) -> Replaced:
        return Replaced(self._wrong, self._right, self.count, is_complete=self._is_complete)

    def find(self, text: str) -> list[Match]:
        """Find what is to be replaced in a text; nothing once the time of the pattern is over."""
        if not is_pattern(self._wrong):
            return [self._match(found, text, self._right) for found in self._pattern.finditer(text)]
        seconds = min(self._own.seconds, self._total.seconds)
        if seconds <= 0 or not self._is_complete:
            self._is_complete = False
            return []
        began_at = time.monotonic()
        try:
            return [
                self._match(found, text, found.expand(self._right))
                for found in self._pattern.finditer(text, timeout=seconds)
                if found.end() > found.start()
            ]
        except (
            TimeoutError,
            IndexError,
            _regex().error,
        ):  # a comment in a verbose pattern hides a group from `problem`
            self._is_complete = False
            return []
        finally:
            spent = time.monotonic() - began_at
            self._own.seconds -= spent
            self._total.seconds -= spent

    @staticmethod
    def _match(found: Any, text: str, right: str) -> Match:
        """Where a match is; a word that is removed takes the space before it along."""
        start, end = found.span()
        return start - (not right and start > 0 and text[start - 1].isspace()), end, right


def _regex() -> Any:
    """The library of patterns, loaded only where somebody uses one: `re` cannot end a search that takes too long."""
    import regex  # noqa: PLC0415

    return regex


def _literal(wrong: str) -> re.Pattern[str]:
    before, after = (
        rf"{side}" if each.isalnum() and not _JOINED.match(each) else ""
        for side, each in ((r"(?<!\w)", wrong[0]), (r"(?!\w)", wrong[-1]))
    )
    return re.compile(f"{before}{re.escape(wrong)}{after}")


def _corrected(segment: Segment, rules: Sequence[_Rule]) -> Segment:
    text, words = segment.text, segment.words
    for rule in rules:
        matches = rule.find(text)
        rule.count += len(matches)
        text = _spliced(text, matches)
        if words:
            joined = "".join(word.text for word in words)
            words = tuple(_replaced(words, rule.find(joined)))
    if (text, words) == (segment.text, segment.words):
        return segment
    recorded = RecordedText(segment.text, segment.words)
    return dataclasses.replace(segment, text=text, words=words, recorded=recorded)


def _spliced(text: str, matches: Sequence[Match], offset: int = 0) -> str:
    parts, at = [], 0
    for start, end, right in matches:
        parts += [text[at : start - offset], right]
        at = end - offset
    return "".join([*parts, text[at:]])


def _replaced(words: Sequence[Word], matches: Sequence[Match]) -> Iterator[Word]:
    """The words after the replacements: as many new words as before keep their times one by one, others share them."""
    starts = [0, *itertools.accumulate(len(word.text) for word in words)]
    left = list(matches)
    index = 0
    while index < len(words):
        first, own = index, []
        index += 1
        while left and left[0][0] < starts[index]:
            own.append(left.pop(0))
            while starts[index] < own[-1][1]:
                index += 1
        group = words[first:index]
        if own:
            yield from _timed(group, _spliced("".join(word.text for word in group), own, starts[first]))
        else:
            yield from group


def _timed(group: Sequence[Word], text: str) -> Iterator[Word]:
    pieces = _PIECE.findall(text)
    if len(pieces) == len(group):
        yield from (dataclasses.replace(word, text=piece) for word, piece in zip(group, pieces, strict=True))
    elif pieces:
        yield Word(group[0].start, group[-1].end, text, min(word.probability for word in group))
