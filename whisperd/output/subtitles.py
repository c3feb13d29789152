"""Sets what is said in subtitles that a person can read: how it is divided into cues and lines, and when each is shown.

The limits are those of broadcasters (Netflix, Timed Text Style Guide; BBC, Subtitle Guidelines 1.2; EBU-TT): two lines of 42
characters, 5/6 s to 7 s, 20 characters a second, two frames between cues. A line is measured in columns, in which an East
Asian wide character is 2; of these a line holds 16. Where cues and lines end is chosen for a whole run of speech at once, as
TeX breaks paragraphs (Knuth and Plass, 1981): the division with the least cost, see `_Layout.cost`.

Speech that is faster than one can read stays as fast, and no text is left out. Where cues would be shorter than 5/6 s, they
are shown together or later.
"""

from __future__ import annotations

import bisect
import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

from whisperd.output.phrases import binding_words, clause_words, prepositions
from whisperd.output.text import milliseconds, speaker_label
from whisperd.output.units import clusters, columns, ends_sentence, is_unspaced, is_wide, streams, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import Transcript
    from whisperd.output.units import Unit

LINE_CHARACTERS, WIDE_LINE_CHARACTERS = 42, 16
LINES = 2
SHORTEST, LONGEST = 834, 7000  # milliseconds of a cue
GAP = 84  # milliseconds between two cues: two frames at 24 frames a second
CLOSED_GAP = 500  # a shorter pause between two cues is closed to `GAP`, or it would flicker
READING_SPEED = 20  # columns a second
SHORT_PAUSE = 150  # milliseconds; a longer one makes it better to end a cue there
INNER_PAUSE = 400  # milliseconds; a longer one is better between two cues
PAUSE = 2000  # milliseconds that no cue contains
LENT = 300  # milliseconds that a cue may begin before or after its first word, so that it or the one before can be read
RECENT_SECONDS = 4.0  # after somebody else began to speak, a cue must say who speaks
OVERLAP = 300  # milliseconds for which two speakers must speak at once to be shown together
DASH = "- "
UNITS_MAX = 200  # of a cue, whatever its limits are; bounds the time that setting takes

NEVER = 1 << 62  # milliseconds

# Costs, each against that of one more cue or line
_CUE, _LINE, _SCRAP, _WHOLE_SENTENCE, _PART_OF_SENTENCE = 3.0, 1.0, 5.0, 2.0, 6.0
_PAUSED = 0.01  # a millisecond
_SENTENCE, _CLAUSE, _CONJUNCTION, _PHRASE, _WORD, _NAME, _BOUND = 0.0, 1.0, 2.5, 3.5, 6.0, 12.0, 40.0
_IMPOSSIBLE = 1e6


class Utterance(NamedTuple):
    """What one speaker says in a cue, in lines of units; `label` stands before it: a dash, or who speaks, or both."""

    speaker: str | None
    lines: tuple[tuple[Unit, ...], ...]
    label: str = ""

    @property
    def units(self) -> list[Unit]:
        """The units of all lines."""
        return [unit for line in self.lines for unit in line]


class Subtitle(NamedTuple):
    """A cue: from when to when it is shown, in milliseconds, and one part for each speaker."""

    start: int
    end: int
    parts: tuple[Utterance, ...]

    @property
    def units(self) -> list[Unit]:
        """The units of all parts."""
        return [unit for part in self.parts for unit in part.units]

    @property
    def columns(self) -> int:
        """What there is to read, with a column for each line break."""
        lines = [line for part in self.parts for line in part.lines]
        return sum(map(_width, lines)) + sum(columns(part.label) for part in self.parts) + len(lines) - 1

    @property
    def spoken_until(self) -> int:
        """When its last word ends, in milliseconds."""
        return max(milliseconds(part.lines[-1][-1].end) for part in self.parts)


class _Run(NamedTuple):
    """Units of one speaker in one language without a long pause.

    Attributes:
        units: none is wider than a line.
        until: when the speaker goes on after the run, in milliseconds.
        limit: columns of a line.
        label: columns of the name of the speaker, as it stands before a cue.
        changes: for each unit, whether a cue that begins with it must say who speaks.
        shared: for each unit, whether somebody else speaks at the same time, so that both need a line.
    """

    units: Sequence[Unit]
    until: int
    limit: int
    label: int
    changes: Sequence[bool]
    shared: Sequence[bool]


def arrange(transcript: Transcript, options: OutputOptions, language: str, *, overlap: bool) -> list[Subtitle]:
    """Return the subtitles of a transcript, in the order of their starts.

    Args:
        transcript: with times of words or without.
        options: width and number of lines, words in a cue; null: the limits of this module.
        language: of the text.
        overlap: subtitles of different speakers may be shown at the same time, and have no labels. Otherwise, what is said
            at the same time stands in one subtitle with a line for each, and a label says who speaks where that changes.
    """
    spoken = streams(transcript, language)
    set_streams = []
    for speaker, units in spoken.items():
        others = [] if overlap else [each for name, each in spoken.items() if name != speaker]
        label = 0 if overlap else columns(_label_of(speaker, options))
        laid_out = [
            subtitle
            for run in _runs(units, others, label, options)
            for subtitle in _Layout(run, options, speaker).subtitles()
        ]
        set_streams.append(laid_out)
    if overlap:
        spaced = [_lent(_spaced(laid_out, options)) for laid_out in set_streams]
        return sorted(itertools.chain(*spaced), key=lambda subtitle: subtitle.start)
    in_order = sorted(itertools.chain(*set_streams), key=lambda subtitle: subtitle.start)
    return _lent(list(_labelled(_spaced(in_order, options), options)))


def _label_of(speaker: str | None, options: OutputOptions) -> str:
    """`Ann: `; a name that would fill more than half a line is cut."""
    label = speaker_label(speaker)
    most = (options.max_line_width or LINE_CHARACTERS) // 2
    if columns(label) <= most:
        return label
    name = label.removesuffix(": ")
    while name and columns(name) + len("…: ") > most:
        name = name[:-1]
    return f"{name}…: "


def _line_columns(text: str, options: OutputOptions) -> int:
    """How many columns a line of such a text may have; `max_line_width` counts characters, of which a wide one is 2."""
    if is_wide(text):
        return 2 * (options.max_line_width or WIDE_LINE_CHARACTERS)
    return options.max_line_width or LINE_CHARACTERS


def _width(units: Iterable[Unit]) -> int:
    return columns(text_of(units))


def _narrowed(unit: Unit, limit: int) -> Iterator[Unit]:
    """A unit; several, if no line could hold it, such as a web address."""
    if unit.columns <= limit:
        yield unit
        return
    pieces = [""]
    for cluster in clusters(unit.text):
        if pieces[-1] and columns(pieces[-1] + cluster) > limit:
            pieces.append("")
        pieces[-1] += cluster
    step = (unit.end - unit.start) / len(pieces)
    for number, text in enumerate(pieces):
        yield unit._replace(
            text=text,
            space="" if number else unit.space,
            columns=columns(text),
            start=unit.start + step * number,
            end=unit.start + step * (number + 1),
        )


def _runs(
    stream: Sequence[Unit], others: Sequence[Sequence[Unit]], label: int, options: OutputOptions
) -> Iterator[_Run]:
    """Divide what a speaker says at long pauses and where the language changes, and find out where others speak."""
    busy = _busy(others)
    first = 0
    changes_of = _changes(stream, others)
    for index in range(1, len(stream) + 1):
        if index < len(stream) and _pause(stream, index) < PAUSE and stream[index].language == stream[first].language:
            continue
        limit = _line_columns(text_of(stream[first:index]), options)
        units, changes = [], []
        for unit, is_change in zip(stream[first:index], changes_of[first:index], strict=True):
            pieces = list(_narrowed(unit, limit))
            units += pieces
            changes += [is_change] * len(pieces)
        until = milliseconds(stream[index].start) if index < len(stream) else NEVER
        yield _Run(units, until, limit, label, changes, [_is_busy(busy, unit) for unit in units])
        first = index


def _changes(stream: Sequence[Unit], others: Sequence[Sequence[Unit]]) -> list[bool]:
    """For each unit, whether a cue that begins with it must say who speaks.

    That is so where a turn begins, and for a while after somebody else has begun to speak within it.
    """
    starts = sorted(unit.start for each in others for unit in each)
    changes = []
    turn, before = -1.0, None
    for unit in stream:
        count = bisect.bisect_right(starts, unit.start)
        is_turn = before is None or (
            bisect.bisect_right(starts, before.start) < count and (unit.start - before.end) * 1000 >= OVERLAP
        )
        if is_turn:
            turn = unit.start
        changes.append(is_turn or bisect.bisect_right(starts, max(turn, unit.start - RECENT_SECONDS)) < count)
        before = unit
    return changes


def _busy(others: Sequence[Sequence[Unit]]) -> list[tuple[int, int]]:
    """When others speak, in order and without overlaps; milliseconds."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted((milliseconds(u.start), milliseconds(u.end)) for each in others for u in each):
        if merged and start - merged[-1][1] < OVERLAP:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _is_busy(busy: Sequence[tuple[int, int]], unit: Unit) -> bool:
    start, end = milliseconds(unit.start), milliseconds(unit.end)
    index = bisect.bisect_right(busy, (end, 0)) - 1
    return any(
        min(end, until) - max(start, since) >= min(OVERLAP, (end - start) // 2)
        for since, until in busy[max(0, index - 1) : index + 2]
        if until > start and since < end
    )


def _pause(units: Sequence[Unit], index: int) -> int:
    """Milliseconds of silence before a unit."""
    return milliseconds(units[index].start) - milliseconds(units[index - 1].end)


class _Layout:
    """The best division of one run into cues and lines."""

    def __init__(self, run: _Run, options: OutputOptions, speaker: str | None) -> None:
        self._run = run
        self._units = units = run.units
        self._speaker = speaker
        self._lines = options.max_line_count or LINES
        self._units_max = UNITS_MAX
        if options.max_words_per_line and not options.max_line_width:
            self._units_max = min(UNITS_MAX, options.max_words_per_line)
        self._ends = list(itertools.accumulate(unit.columns + len(unit.space) for unit in units))  # columns up to there
        self._starts = [end - unit.columns for end, unit in zip(self._ends, units, strict=True)]
        self._breaks = [*(_break_cost(units, index) for index in range(1, len(units))), _SENTENCE]
        self._times = [(milliseconds(unit.start), milliseconds(unit.end)) for unit in units]
        self._pauses = [max(0, _pause(units, index) - INNER_PAUSE) * _PAUSED for index in range(1, len(units))]
        self._broken: dict[tuple[int, int, int, int], tuple[float, tuple[int, ...]]] = {}

    def subtitles(self) -> list[Subtitle]:
        """Return the cues with the least cost in all."""
        count = len(self._units)
        best = [0.0] + [math.inf] * count
        origin = [0] * (count + 1)
        for end in range(1, count + 1):
            self._broken.clear()
            # The longest cue first: it is mostly the best, and then few of the others need be looked at in full.
            for first, sentences, pauses, is_shared in reversed(self._candidates(end)):
                if best[first] + pauses + _CUE + self._breaks[end - 1] > best[end]:
                    continue
                cost = best[first] + pauses + self._cost(first, end, sentences, is_shared=is_shared)
                if cost <= best[end]:
                    best[end], origin[end] = cost, first
        cuts = [count]
        while cuts[-1]:
            cuts.append(origin[cuts[-1]])
        return [self._subtitle(first, end) for first, end in itertools.pairwise(reversed(cuts))]

    def _candidates(self, end: int) -> list[tuple[int, int, float, bool]]:
        """The cues that may end before this unit, the shortest first.

        Of each: its first unit, how many sentences end within it, the cost of its pauses, and whether somebody else speaks
        meanwhile.
        """
        found = []
        pauses, sentences, is_shared = 0.0, 0, False
        until = self._times[end - 1][1]
        for first in range(end - 1, max(-1, end - 1 - self._units_max), -1):
            is_shared = is_shared or self._run.shared[first]
            if first < end - 1:
                most = (1 if is_shared else self._lines) * self._run.limit - self._lead(first, is_shared=is_shared)
                if until - self._times[first][0] > LONGEST or self._ends[end - 1] - self._starts[first] > most:
                    break
                pauses += self._pauses[first]
                sentences += self._breaks[first] == _SENTENCE
            found.append((first, sentences, pauses, is_shared))
        return found

    def _cost(self, first: int, end: int, sentences: int, *, is_shared: bool) -> float:
        """How bad it is to show these units in one cue, except for its pauses.

        Each cue costs something. So do, in rising order, an end that is not that of a sentence, clause or phrase, parts of
        several sentences, text that cannot be read in the time, a cue that is too short, and an article or preposition at
        the end of a line.

        Args:
            first: the first unit.
            end: the unit after the last one.
            sentences: how many end within the cue.
            is_shared: somebody else speaks meanwhile, so there is one line, with a dash and the name.
        """
        start = self._times[first][0]
        lines = 1 if is_shared else self._lines
        lead = self._lead(first, is_shared=is_shared)
        room = self._run.limit - lead
        width = self._ends[end - 1] - self._starts[first]
        inside, _ = self._break_lines(first, end, lines, room)
        if inside >= _IMPOSSIBLE and end - first > 1:
            return math.inf
        cost = _CUE + self._breaks[end - 1] + inside
        is_whole = self._breaks[end - 1] == _SENTENCE and (first == 0 or self._breaks[first - 1] == _SENTENCE)
        if is_whole:
            cost += _WHOLE_SENTENCE * sentences
        else:
            cost += _PART_OF_SENTENCE * sentences + _SCRAP * max(0.0, 1 - width / (0.7 * self._run.limit))
        length = self._visible_until(first, end, lead) - start
        if length < SHORTEST:
            cost += 15 + 40 * (1 - length / SHORTEST)
        return cost + min(2 * max(0.0, width * 1000 / max(length, 1) - READING_SPEED), 60.0)

    def _lead(self, first: int, *, is_shared: bool) -> int:
        """The columns that must be free before the first unit of a cue: for a name, and for a dash."""
        name = self._run.label if is_shared or self._run.changes[first] else 0
        return name + (len(DASH) if is_shared else 0)

    def _visible_until(self, first: int, end: int, lead: int) -> int:
        """When a cue disappears: after the last word, later if it is short or long to read, before the next cue."""
        start, spoken_until = self._times[first][0], self._times[end - 1][1]
        after = self._times[end][0] if end < len(self._units) else self._run.until
        width = lead + self._ends[end - 1] - self._starts[first]
        needed = max(SHORTEST, width * 1000 // READING_SPEED)
        return max(start, min(max(spoken_until, start + needed), after - GAP, start + LONGEST))

    def _subtitle(self, first: int, end: int) -> Subtitle:
        is_shared = any(self._run.shared[first:end])
        lead = self._lead(first, is_shared=is_shared)
        _, cuts = self._break_lines(first, end, 1 if is_shared else self._lines, self._run.limit - lead)
        divided = tuple(tuple(self._units[a:b]) for a, b in itertools.pairwise([first, *cuts, end]))
        until = self._visible_until(first, end, lead)
        return Subtitle(self._times[first][0], until, (Utterance(self._speaker, divided),))

    def _break_lines(self, first: int, end: int, lines: int, room: int) -> tuple[float, tuple[int, ...]]:
        """The cost of the best line breaks in a cue, and where they are; `room` is the width of the first line."""
        width = self._ends[end - 1] - self._starts[first]
        if width <= room:
            return 0.0, ()
        if lines == 1:
            return _IMPOSSIBLE, ()
        key = (first, end, lines, room)
        if (known := self._broken.get(key)) is not None:
            return known
        best: tuple[float, tuple[int, ...]] = (_IMPOSSIBLE, ())
        for cut in range(first + 1, end):
            upper = self._ends[cut - 1] - self._starts[first]
            if upper > room:
                break
            if self._ends[end - 1] - self._starts[cut] > (lines - 1) * self._run.limit:
                continue
            inside, cuts = self._break_lines(cut, end, lines - 1, self._run.limit)
            uneven = abs(upper - width / lines) / self._run.limit
            cost = _LINE + 0.7 * self._breaks[cut - 1] + 8 * uneven + 10 * uneven**2 + inside
            if cost < best[0]:
                best = (cost, (cut, *cuts))
        self._broken[key] = best
        return best


def _break_cost(units: Sequence[Unit], index: int) -> float:
    """How bad it is to break a line or end a cue before a unit."""
    if ends_sentence(units, index - 1):
        return _SENTENCE
    before, after, language = units[index - 1].text, units[index].text, units[index].language
    pause = _pause(units, index)
    if units[index].segment != units[index - 1].segment and is_unspaced(after):
        cost = _CLAUSE  # there may be no commas at all
    elif not units[index].space and before[-1].isalnum() and after[0].isalnum():
        cost = _between_characters(before[-1], after[0])
    elif before.casefold() in binding_words(language) or before.casefold().endswith(("'", "’")):
        return _BOUND
    elif before[-1] in ",;:–—-、，；：،؛)»”":
        cost = _CLAUSE
    elif after.casefold() in clause_words(language):
        cost = _CONJUNCTION
    elif after.casefold() in prepositions(language) or after[0] in "([«“„「『（":
        cost = _PHRASE
    elif before[-1].isdigit() or (before[0].isupper() and after[0].isupper() and language != "de"):
        cost = _NAME
    else:
        cost = _WORD
    return max(_CLAUSE, cost - min(pause, 1000) / 200) if pause > SHORT_PAUSE else cost


def _between_characters(before: str, after: str) -> float:
    """The cost of a break within a script without spaces; in Japanese a phrase ends with hiragana."""
    kinds = [_kind(before), _kind(after)]
    if kinds == ["hiragana", "hiragana"]:
        return _WORD
    if kinds[0] == kinds[1]:
        return _NAME if kinds[0] == "katakana" else _WORD
    return _BOUND / 2 if kinds[1] == "hiragana" else _PHRASE


def _kind(char: str) -> str:
    if "\u3040" <= char <= "\u309f":
        return "hiragana"
    return "katakana" if "\u30a0" <= char <= "\u30ff" else "other"


def _spaced(subtitles: Iterable[Subtitle], options: OutputOptions) -> list[Subtitle]:
    """Put cues apart, each shown long enough.

    Where a cue begins before the one before it has ended, both are shown together, if they are of different speakers and
    there are lines enough; or the earlier one ends sooner, as long as it can be read; else the later one is shown later.
    """
    spaced: list[Subtitle] = []
    for subtitle in subtitles:
        following = subtitle
        if spaced and following.start - spaced[-1].end < CLOSED_GAP:
            last = spaced[-1]
            room = following.start - GAP - last.start
            length = last.end - last.start
            is_readable = room >= max(SHORTEST, min(length, last.columns * 700 // READING_SPEED))
            joined = None
            if not is_readable or last.spoken_until - following.start > OVERLAP:
                joined = _joined(last, following, options)
            if joined is not None:
                spaced[-1] = joined
                continue
            end = last.start + max(SHORTEST, min(room, LONGEST if is_readable else length))
            spaced[-1] = last._replace(end=end)
            start = max(following.start, end + GAP)
            least = min(following.end - following.start, _reading_time(following))
            following = following._replace(start=start, end=max(following.end, start + least))
        length = min(max(following.end - following.start, SHORTEST), LONGEST)
        spaced.append(following._replace(end=following.start + length))
    return spaced


def _lent(subtitles: Sequence[Subtitle]) -> list[Subtitle]:
    """Show cues that are too fast to read for longer: in the pause after them, then in time that a neighbour can spare.

    Of a neighbour they get up to `LENT`.
    """
    lent = list(subtitles)
    for index, subtitle in enumerate(lent):
        start, end = subtitle.start, subtitle.end
        missing = min(_reading_time(subtitle), LONGEST) - (end - start)
        if missing > 0 and index + 1 < len(lent):
            following = lent[index + 1]
            free = max(0, following.start - GAP - end)
            spare = max(0, following.end - following.start - _reading_time(following))
            given = min(max(0, missing - free), LENT, spare)
            lent[index + 1] = following._replace(start=following.start + given)
            end += min(missing, free + given)
        elif missing > 0:
            end += missing
        missing -= end - subtitle.end
        if missing > 0:
            last = lent[index - 1] if index else None
            earliest = min(last.end, last.start + _reading_time(last)) + GAP if last else 0
            start = min(start, max(earliest, start - min(missing, LENT)))
            if last:
                lent[index - 1] = last._replace(end=min(last.end, start - GAP))
        lent[index] = subtitle._replace(start=start, end=end)
    return lent


def _reading_time(subtitle: Subtitle) -> int:
    return max(SHORTEST, subtitle.columns * 1000 // READING_SPEED)


def _joined(one: Subtitle, other: Subtitle, options: OutputOptions) -> Subtitle | None:
    """Both in one cue, a line for each speaker; None where they do not fit."""
    parts = (*one.parts, *other.parts)
    if len({part.speaker for part in parts}) < len(parts) or len(parts) > (options.max_line_count or LINES):
        return None
    if any(len(part.lines) > 1 or not _fits(part, options) for part in parts):
        return None
    joined = Subtitle(one.start, max(one.end, other.end), parts)
    end = max(joined.end, joined.start + _reading_time(joined))
    return joined._replace(end=min(end, joined.start + LONGEST))


def _fits(part: Utterance, options: OutputOptions) -> bool:
    text = text_of(part.units)
    return columns(f"{DASH}{_label_of(part.speaker, options)}{text}") <= _line_columns(text, options)


def _labelled(subtitles: Iterable[Subtitle], options: OutputOptions) -> Iterator[Subtitle]:
    """The subtitles with labels, as far as these fit into the line."""
    last: tuple[str | None, ...] = ()
    for subtitle in subtitles:
        dash = DASH if len(subtitle.parts) > 1 else ""
        speakers = tuple(part.speaker for part in subtitle.parts)
        parts = []
        for part in subtitle.parts:
            label = f"{dash}{_label_of(part.speaker, options)}" if speakers != last else dash
            first = text_of(part.lines[0])
            fits = columns(f"{label}{first}") <= _line_columns(first, options)
            parts.append(part._replace(label=label if fits else dash))
        yield subtitle._replace(parts=tuple(parts))
        last = speakers
