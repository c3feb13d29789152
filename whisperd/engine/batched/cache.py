"""Keys and values of the rows now being decoded.

A window holds one slot: `group` rows of self-attention (beams, or samples of which the best is taken) and one entry of
cross-attention that they share. Slots in use are always the first ones, and both are as long as the longest of them
needs, not as long as any might: a step reads them without a copy. On two cores, for 13 windows, the scores of all
layers of `base` took 4.4 ms where keys lay without gaps and 28 to 34 ms where 1345 to 1400 of 1500 frames were used; 50
windows of 3 to 17 s together took 15.3 and 15.8 s with such gaps, 11.3 and 11.9 s without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from whisperd.engine.batched.network import KeyValue, TextDecoder

STEP_FRAMES = 250  # the cross-attention grows by so much, 5 s, and so seldom
STEP_PLACES = (
    32  # likewise; over a multiple of these the sums are taken in the same order, whoever else is in the batch
)


class Cache:
    """Slots for `capacity` windows.

    Args:
        network: whose keys and values are kept.
        capacity: windows at most.
        group: rows of each window.
    """

    def __init__(self, network: TextDecoder, capacity: int, group: int) -> None:
        self.group, self.slots = group, 0
        self._network, self._lengths, self._frames, self._places = network, [0] * capacity, 0, 0
        rows = capacity * group
        self.own = [(self._zeros(rows, 0), self._zeros(rows, 0)) for _ in network.layers]
        self.cross = [(self._zeros(capacity, 0), self._zeros(capacity, 0)) for _ in network.layers]
        self.cross_mask: Tensor | None = None

    def _zeros(self, rows: int, places: int) -> Tensor:
        """Zeros, not empty: a masked place still meets its value, and 0 times a stray NaN is NaN."""
        network = self._network
        shape = (rows, network.heads, places, network.size)
        return torch.zeros(shape, dtype=network.dtype, device=network.device)

    @property
    def rows(self) -> int:
        """Rows in use."""
        return self.slots * self.group

    def own_now(self, longest: int) -> list[KeyValue]:
        """Per layer, the self-attention of the rows in use, for rows of up to so many tokens: (rows, heads, places, size).

        There are a few more places, `STEP_PLACES` at a time.
        """
        self._fit_places(longest)
        return [(key[: self.rows], value[: self.rows]) for key, value in self.own]

    def cross_now(self) -> list[KeyValue]:
        """Per layer, the cross-attention of the slots in use, up to the longest of them or a little more."""
        return [(key[: self.slots], value[: self.slots]) for key, value in self.cross]

    def attend_to(self, features: Sequence[Tensor]) -> tuple[list[KeyValue], Tensor | None]:
        """Fill the cross-attention of the next free slots, for windows that are about to `join` in this order.

        Args:
            features: of each window, (frames, width).

        Returns:
            Per layer, keys and values in those slots, (windows, heads, frames of the longest or more, size); and what
            to add to the scores, (windows, 1, 1, frames), None where nothing is beyond the end of its window.
        """
        first, last = self.slots, self.slots + len(features)
        self._lengths[first:last] = [len(one) for one in features]
        self._fit(max(self._lengths[first:last]))
        free = [(key[first:last], value[first:last]) for key, value in self.cross]
        self._network.cross(features, free)
        return free, self._mask(first, last)

    def join(self, own: list[KeyValue], tokens: int) -> None:
        """Take the next free slot into use, its cross-attention being there.

        Args:
            own: per layer, (heads, n, size), of which the first `tokens` places count; copied to each row of the group.
            tokens: places to keep.
        """
        first = self.slots * self.group
        self._fit_places(tokens, shrink=False)
        for mine, theirs in zip(self.own, own, strict=True):
            for kept, new in zip(mine, theirs, strict=True):
                kept[first : first + self.group, :, :tokens] = new[:, :tokens]
        self.slots += 1
        self.cross_mask = self._mask(0, self.slots)

    def leave(self, slot: int, tokens: int) -> None:
        """Free a slot: the last one moves into it, with its first `tokens` places."""
        last = self.slots - 1
        if slot != last:
            to, start = slot * self.group, last * self.group
            for pair in self.own:
                for kept in pair:
                    kept[to : to + self.group, :, :tokens] = kept[start : start + self.group, :, :tokens]
            frames = self._lengths[last]
            for pair in self.cross:
                for kept in pair:
                    kept[slot, :, :frames] = kept[last, :, :frames]
            self._lengths[slot] = frames
        self.slots = last
        self.cross_mask = self._mask(0, last)

    def reorder(self, sources: Tensor, tokens: int) -> None:
        """Let each row go on from the row `sources` names, for the first `tokens` places: beams that took over others.

        Args:
            sources: (rows,), row numbers.
            tokens: places in use in the longest row.
        """
        if sources.is_cuda:
            moved: Tensor | slice = slice(0, self.rows)
        else:
            # On a CPU the copy is what costs; most rows stay where they are.
            moved = (sources != torch.arange(self.rows)).nonzero().flatten()
            sources = sources[moved]
            if not len(sources):
                return
        for pair in self.own:
            for kept in pair:
                kept[moved, :, :tokens] = kept[sources, :, :tokens]

    def _fit(self, frames: int) -> None:
        """Make room for one of so many frames; only without windows in use does it get less."""
        wanted = -(-frames // STEP_FRAMES) * STEP_FRAMES
        if wanted == self._frames or (self.slots and wanted < self._frames):
            return
        self._resize(self.cross, self.slots, wanted)
        self._frames = wanted

    def _fit_places(self, tokens: int, *, shrink: bool = True) -> None:
        """Make room for rows of so many tokens, and where all are shorter let go what is not needed."""
        wanted = min(-(-tokens // STEP_PLACES) * STEP_PLACES, self._network.context)
        if wanted == self._places or (not shrink and wanted < self._places):
            return
        self._resize(self.own, self.rows, wanted)
        self._places = wanted

    def _resize(self, pairs: list[KeyValue], used: int, places: int) -> None:
        for number, (key, value) in enumerate(pairs):  # layer by layer: both lengths of all would be too much
            pairs[number] = (self._resized(key, used, places), self._resized(value, used, places))

    def _resized(self, kept: Tensor, used: int, places: int) -> Tensor:
        resized, common = self._zeros(len(kept), places), min(kept.shape[2], places)
        resized[:used, :, :common] = kept[:used, :, :common]
        return resized

    def _mask(self, first: int, last: int) -> Tensor | None:
        """Minus infinity beyond the ends of the windows in these slots, else 0: (windows, 1, 1, frames)."""
        lengths = self._lengths[first:last]
        if all(length == self._frames for length in lengths):
            return None
        key = self.cross[0][0]
        return mask_beyond(torch.tensor(lengths, device=key.device), self._frames, key.dtype)


def mask_beyond(lengths: Tensor, places: int, dtype: torch.dtype) -> Tensor:
    """Minus infinity at places from each length on, else 0: (lengths, 1, 1, places)."""
    beyond = torch.arange(places, device=lengths.device) >= lengths[:, None]
    mask = torch.zeros(beyond.shape, dtype=dtype, device=lengths.device).masked_fill_(beyond, -torch.inf)
    return mask[:, None, None]
