"""Decides which language is spoken in which part of a recording, from what the engine hears in each of them.

The engine listens to groups of parts when it decodes a window, which costs next to nothing and is not always right. Where
it hears another language than the main one, it listens to each part by itself. A change of language must be worth its
cost: a word of English in French changes nothing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from whisperd.engine.api import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Chances = dict[str, float]  # probability by language code
    Part = tuple[int, int]  # start and end in samples

GROUP_SECONDS = 4.0  # of speech, or the probabilities of a part within its window are too rough
SHORTEST_GROUP_SECONDS = 2.0
FOREIGN = 0.75  # in 9 minutes of English and French no group reached it by mistake; where they changed, most did
SURE = 0.5  # probability from which a language counts as heard
UNMISTAKABLE = 0.7  # in each of several groups: no part needs to be heard by itself
UNMISTAKABLE_GROUPS = 3
SWITCH_SECONDS = 2.0  # of speech, which a change of language costs
LEAST_CANDIDATE = 0.1


def is_clear(heard: Sequence[Chances], main: str) -> bool:
    """Whether the main language, and no other, was heard in every group."""
    return all(chances.get(main, 0.0) >= SURE for chances in heard)


def is_foreign(heard: Sequence[Chances], main: str) -> bool:
    """Whether another language than the main one was heard in some group."""
    return any(chance >= FOREIGN for chances in heard for language, chance in chances.items() if language != main)


def grouped(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Join neighbouring parts until each group is long enough; a long part would drown out the short group before it."""
    groups: list[Part] = []
    least, shortest = GROUP_SECONDS * SAMPLE_RATE, SHORTEST_GROUP_SECONDS * SAMPLE_RATE
    for start, end in parts:
        length = groups[-1][1] - groups[-1][0] if groups else least
        if length < shortest or (length < least and end - start < least):
            groups[-1] = (groups[-1][0], end)
        else:
            groups.append((start, end))
    if len(groups) > 1 and groups[-1][1] - groups[-1][0] < shortest:
        (start, _), (_, end) = groups[-2:]
        groups[-2:] = [(start, end)]
    return tuple(groups)


def spoken(parts: Sequence[tuple[Part, Chances]], main: str) -> list[str]:
    """Choose the language of each part, so that the most seconds are in a likely language and it seldom changes.

    Each part counts with its seconds times the probability of the language chosen for it; each change costs
    `SWITCH_SECONDS`, also from the main language before the first part and back to it behind the last one. The best choice
    is found as Viterbi does (doi:10.1109/TIT.1967.1054010).

    Args:
        parts: neighbouring parts, and what was heard in them.
        main: the language of what lies around them.
    """
    candidates = sorted({main} | {code for _, chances in parts for code in chances if chances[code] >= LEAST_CANDIDATE})
    worth = {code: 0.0 if code == main else -SWITCH_SECONDS for code in candidates}
    before: list[dict[str, str]] = []
    for (start, end), chances in parts:
        best = max(candidates, key=lambda code: (worth[code], code == main))
        came = {code: code if worth[code] >= worth[best] - SWITCH_SECONDS else best for code in candidates}
        worth = {
            code: max(worth[code], worth[best] - SWITCH_SECONDS) + (end - start) / SAMPLE_RATE * chances.get(code, 0.0)
            for code in candidates
        }
        before.append(came)
    last = max(candidates, key=lambda code: (worth[code] - (0.0 if code == main else SWITCH_SECONDS), code == main))
    chosen = []
    for came in reversed(before):
        chosen.append(last)
        last = came[last]
    return _without_guesses(parts, chosen[::-1], main)


def _without_guesses(parts: Sequence[tuple[Part, Chances]], chosen: Sequence[str], main: str) -> list[str]:
    """Take the main language where no other was heard surely: noise sounds a little like many languages."""
    kept: list[str] = []
    for language, same in itertools.groupby(zip(parts, chosen, strict=True), lambda each: each[1]):
        heard = [(end - start, chances.get(language, 0.0)) for ((start, end), chances), _ in same]
        is_sure = sum(length * chance for length, chance in heard) >= SURE * sum(length for length, _ in heard)
        kept += [language if is_sure else main] * len(heard)
    return kept


@dataclass(slots=True, eq=False)
class WindowLanguages:
    """What is known about the languages of one window.

    Attributes:
        parts: start and end in samples, in order.
        channel: windows of other channels are no neighbours.
        heard: in each group of parts when it was decoded first; None: not decoded yet.
        alone: what was heard in a part by itself, by number of the part; None: asked for.
        is_decided: the language of each part is final.
    """

    parts: tuple[Part, ...]
    channel: int
    heard: tuple[Chances, ...] | None = None
    alone: dict[int, Chances | None] = field(default_factory=dict)
    is_decided: bool = False

    def is_clear(self, main: str) -> bool:
        """Whether nothing but the main language was heard; so it is where the engine does not listen to parts."""
        return self.heard is not None and is_clear(self.heard, main)

    def is_foreign(self, main: str) -> bool:
        """Whether another language was heard."""
        return self.heard is not None and is_foreign(self.heard, main)

    @property
    def is_unmistakable(self) -> bool:
        """Whether one language was heard in all of several groups, so that no part needs to be heard by itself."""
        if self.heard is None or len(self.heard) < UNMISTAKABLE_GROUPS:
            return False
        loudest = {max(chances, key=chances.__getitem__, default="") for chances in self.heard}
        return len(loudest) == 1 and all(max(chances.values(), default=0.0) >= UNMISTAKABLE for chances in self.heard)

    def evidence(self) -> list[tuple[Part, Chances]] | None:
        """Return what was heard in each part; None while some of it is missing."""
        if self.is_unmistakable:
            return list(zip(grouped(self.parts), self.heard or (), strict=True))
        alone = [self.alone.get(number) for number in range(len(self.parts))]
        known = [(part, chances) for part, chances in zip(self.parts, alone, strict=True) if chances is not None]
        return known if len(known) == len(self.parts) else None


class RecordingLanguages:
    """Which language is spoken where in one recording.

    Neighbouring windows that are not clearly in the main language are decided together, once the windows around them are
    known, so that the decision does not depend on the order in which windows are finished.

    Args:
        windows: of each window, its parts and the number of its channel.
    """

    def __init__(self, windows: Sequence[tuple[tuple[Part, ...], int]]) -> None:
        self.windows = [WindowLanguages(parts, channel) for parts, channel in windows]

    def decide(self, main: str, is_idle: Callable[[int], bool]) -> Iterator[tuple[int, list[tuple[int, int, str]]]]:
        """Yield what can be decided now, once: number of the window, and start, end and language of each part of one language.

        Windows without foreign neighbours stay in the main language, and are only marked.

        Args:
            main: the language of the recording.
            is_idle: whether the engine has nothing of the window with a number, so that its text may be replaced.
        """
        for numbers, is_bounded in self._runs(main):
            run = [self.windows[number] for number in numbers]
            if not is_bounded or all(window.is_decided for window in run):
                continue
            if not any(window.is_foreign(main) for window in run):
                for window in run:
                    window.is_decided = True
                continue
            evidence = [window.evidence() for window in run]
            complete = [each for each in evidence if each is not None]
            if len(complete) < len(run) or not all(map(is_idle, numbers)):
                continue
            chosen = iter(spoken(list(itertools.chain.from_iterable(complete)), main))
            for number, window, parts in zip(numbers, run, complete, strict=True):
                window.is_decided = True
                yield number, _joined([(part, next(chosen)) for part, _ in parts])

    def wanted(self, main: str) -> Iterator[tuple[int, int]]:
        """Yield each part that is to be heard by itself, once: number of the window, number of the part."""
        for numbers, _ in self._runs(main):
            if any(self.windows[number].is_foreign(main) for number in numbers):
                for number in numbers:
                    window = self.windows[number]
                    if window.is_unmistakable:
                        continue
                    for part in range(len(window.parts)):
                        if part not in window.alone:
                            window.alone[part] = None
                            yield number, part

    def is_settled(self, number: int, main: str | None) -> bool:
        """Whether the languages of a window will not change any more."""
        window = self.windows[number]
        return window.is_decided or (main is not None and window.is_clear(main))

    def _runs(self, main: str) -> Iterator[tuple[list[int], bool]]:
        """Yield each run of windows that are not clear, and whether its end and its start are known."""
        for channel, group in itertools.groupby(range(len(self.windows)), lambda number: self.windows[number].channel):
            run: list[int] = []
            is_bounded = True
            for number in group:
                window = self.windows[number]
                assert window.channel == channel
                if window.heard is not None and not window.is_clear(main):
                    run.append(number)
                    continue
                if run:
                    yield run, is_bounded and window.heard is not None
                run, is_bounded = [], window.heard is not None
            if run:
                yield run, is_bounded


def _joined(parts: Sequence[tuple[Part, str]]) -> list[tuple[int, int, str]]:
    """Join neighbouring parts of one language."""
    joined = []
    for language, same in itertools.groupby(parts, lambda each: each[1]):
        same_parts = [part for part, _ in same]
        joined.append((same_parts[0][0], same_parts[-1][1], language))
    return joined
