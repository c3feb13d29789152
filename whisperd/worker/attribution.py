"""Says who spoke each piece of text: joins the turns that diarization found to the words and segments of the engine."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whisperd.core.transcript import Segment, Turn, Word

ENDS_OF_SENTENCES = tuple(".?!\u2026\u3002\uff1f\uff01\u061f\u0964")  # also those of Chinese, Arabic and Hindi


class Attribution:
    """Who speaks when in one channel, ready to be asked for each segment.

    Args:
        turns: in order of their starts.
        channel: name of the channel where channels are speakers; None: there is one.
        names: of people whose voice is known, by their numbers.
    """

    def __init__(
        self, turns: Sequence[Turn], channel: str | None = None, names: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        self._turns = turns
        self._starts = [turn.start for turn in turns]
        self._latest = list(itertools.accumulate((turn.end for turn in turns), max))  # end of any turn so far
        self._is_one = len({turn.speaker for turn in turns}) <= 1
        self._channel = channel
        self._names = names

    def split(self, segment: Segment) -> list[Segment]:
        """Name the speaker of a segment, in several parts if its words are of several people.

        A word goes to whom most of it overlaps, otherwise to the nearest turn. A part of one word that is not a sentence
        of its own stays with the words around it. The tokens are those of the whole segment, so parts have none.
        """
        words = segment.words
        if not words or self._is_one:
            return [dataclasses.replace(segment, speaker=self._name(self._speaker(segment.start, segment.end)))]
        owners = _smoothed(words, [self._speaker(word.start, word.end) for word in words])
        runs = [
            (owner, [word for _, word in run])
            for owner, run in itertools.groupby(zip(owners, words, strict=True), key=lambda each: each[0])
        ]
        if len(runs) == 1:
            return [dataclasses.replace(segment, speaker=self._name(runs[0][0]))]
        parts = [
            dataclasses.replace(
                segment,
                start=run[0].start,
                end=run[-1].end,
                text="".join(word.text for word in run),
                tokens=(),
                words=tuple(run),
                speaker=self._name(owner),
            )
            for owner, run in runs
        ]
        parts[0] = dataclasses.replace(parts[0], start=segment.start)
        parts[-1] = dataclasses.replace(parts[-1], end=segment.end)
        return parts

    def _name(self, speaker: int | None) -> str | None:
        if speaker is not None and speaker in self._names:
            return self._names[speaker]
        if self._channel is None:
            return None if speaker is None else f"Speaker {speaker + 1}"
        return self._channel if speaker is None or self._is_one else f"{self._channel} ({speaker + 1})"

    def _speaker(self, start: float, end: float) -> int | None:
        """Who speaks most of the time between, otherwise who speaks nearest to it; None if nobody ever does."""
        shares: dict[int, float] = {}
        nearest: tuple[float, int] | None = None  # seconds away, and who
        following = bisect.bisect_right(self._starts, end)
        if following < len(self._turns):
            nearest = (self._turns[following].start - end, self._turns[following].speaker)
        for index in range(following - 1, -1, -1):
            if nearest is not None and self._latest[index] <= start - nearest[0]:
                break  # no turn from here on is nearer
            turn = self._turns[index]
            shared = min(end, turn.end) - max(start, turn.start)
            if shared > 0:
                shares[turn.speaker] = shares.get(turn.speaker, 0.0) + shared
            elif nearest is None or -shared < nearest[0]:
                nearest = (-shared, turn.speaker)
        if shares:
            return max(shares, key=lambda speaker: shares[speaker])
        return None if nearest is None else nearest[1]


def _smoothed(words: Sequence[Word], owners: list[int | None]) -> list[int | None]:
    """Give single words to their neighbours, so that no sentence is torn for one word."""
    runs = [[owner, len(list(run))] for owner, run in itertools.groupby(owners)]
    begin = 0
    smoothed: list[int | None] = []
    for number, (owner, length) in enumerate(runs):
        is_sentence = _ends(words[begin]) and (begin == 0 or _ends(words[begin - 1]))
        if length == 1 and len(runs) > 1 and not is_sentence:
            # The next run, if this word begins a sentence; otherwise what was said before.
            follows = number == 0 or (number + 1 < len(runs) and _ends(words[begin - 1]))
            owner = runs[number + 1][0] if follows else smoothed[-1]  # noqa: PLW2901  # the corrected one
        smoothed += [owner] * (length or 0)
        begin += length or 0
    return smoothed


def _ends(word: Word) -> bool:
    return word.text.rstrip().endswith(ENDS_OF_SENTENCES)
