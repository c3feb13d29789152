"""The text decoder of openai-whisper, with weights cast once, fused products and caches of keys and values.

The rows of a batch stand at positions of their own, so windows with prompts of any length, in any language, can be
decoded together and can join and leave at any step. The results are those of openai-whisper; only the order of
summation differs. Each window holds one slot of the cache: `group` rows of self-attention (beams, or samples of which
the best is taken) and one entry of cross-attention that they share. Slots in use are always the first ones, and both
caches are as long as the longest window needs now, so that a step reads them without a copy.

A step is bound by memory. Measurements, and what was tried without success, are in NOTES.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch user reads

from whisperd.engine.whisper_batched.linear import Affine, Norm, QuantisedAffine, linear

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from whisperd.engine.whisper_batched.precision import Precision


STEP_FRAMES = 250  # the cross-attention grows by so much, 5 s, and so seldom
STEP_PLACES = (
    32  # likewise; over a multiple of these the sums are taken in the same order, whoever else is in the batch
)


class Cache:
    """The cache of keys and values, with slots for `capacity` windows.

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
        # By layer, (rows, heads that follow the audio, places, size): of the cross-attention. Beams do not reorder them.
        self.queries = {layer: self._zeros(rows, 0, len(heads)) for layer, heads in network.aligned.items()}

    def _zeros(self, rows: int, places: int, heads: int | None = None) -> Tensor:
        """Allocate zeros, because a masked place is still multiplied, and 0 times a stray NaN is NaN."""
        network = self._network
        shape = (rows, heads or network.heads, places, network.size)
        return torch.zeros(shape, dtype=network.cache_dtype, device=network.device)

    @property
    def rows(self) -> int:
        """The number of rows in use."""
        return self.slots * self.group

    def own_now(self, longest: int) -> list[KeyValue]:
        """Return, for each layer, the self-attention of the rows in use, for rows of up to so many tokens: (rows, heads, places, size).

        There are a few more places, `STEP_PLACES` at a time.
        """
        self._fit_length(longest)
        return [(key[: self.rows], value[: self.rows]) for key, value in self.own]

    def cross_now(self) -> list[KeyValue]:
        """Return, for each layer, the cross-attention of the slots in use, up to the longest of them or a little more."""
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
        """Use the next free slot, whose cross-attention `attend_to` has filled.

        Args:
            own: per layer, (heads, n, size), of which the first `tokens` places count; copied to each row of the group.
            tokens: places to keep.
        """
        first = self.slots * self.group
        self._fit_length(tokens, shrink=False)
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
            for kept in (*(tensor for pair in self.own for tensor in pair), *self.queries.values()):
                kept[to : to + self.group, :, :tokens] = kept[start : start + self.group, :, :tokens]
            frames = self._lengths[last]
            for pair in self.cross:
                for kept in pair:
                    kept[slot, :, :frames] = kept[last, :, :frames]
            self._lengths[slot] = frames
        self.slots = last
        self.cross_mask = self._mask(0, last)

    def watched(self, slot: int, first: int, tokens: int) -> tuple[list[Tensor], list[Tensor]]:
        """Copy what tells where a window's rows looked: queries and keys of the heads that follow the audio.

        Args:
            slot: of the window.
            first: the first place wanted.
            tokens: places wanted.

        Returns:
            Per layer, queries (group, heads, tokens, size) and keys (heads, frames, size).
        """
        rows, frames = slice(slot * self.group, (slot + 1) * self.group), self._lengths[slot]
        queries = [kept[rows, :, first : first + tokens].clone() for kept in self.queries.values()]
        keys = [self.cross[layer][0][slot, self._network.aligned[layer], :frames] for layer in self.queries]
        return queries, keys

    def reorder(self, sources: Tensor, tokens: int) -> None:
        """Copy to each row the first `tokens` places of the row that `sources` names, for beams that replace others.

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
        """Make room for a window of this many frames; shrink only if no window is in use."""
        wanted = -(-frames // STEP_FRAMES) * STEP_FRAMES
        if wanted == self._frames or (self.slots and wanted < self._frames):
            return
        self._resize(self.cross, self.slots, wanted)
        self._frames = wanted

    def _fit_length(self, tokens: int, *, shrink: bool = True) -> None:
        """Make room for rows of this many tokens, and free what is not needed if all are shorter."""
        wanted = min(-(-tokens // STEP_PLACES) * STEP_PLACES, self._network.context)
        if wanted == self._places or (not shrink and wanted < self._places):
            return
        self._resize(self.own, self.rows, wanted)
        for layer, kept in self.queries.items():
            self.queries[layer] = self._resized(kept, self.rows, wanted)
        self._places = wanted

    def _resize(self, pairs: list[KeyValue], used: int, places: int) -> None:
        for number, (key, value) in enumerate(pairs):  # layer by layer: both lengths of all would be too much
            pairs[number] = (self._resized(key, used, places), self._resized(value, used, places))

    def _resized(self, kept: Tensor, used: int, places: int) -> Tensor:
        resized, common = self._zeros(len(kept), places, kept.shape[1]), min(kept.shape[2], places)
        resized[:used, :, :common] = kept[:used, :, :common]
        return resized

    def _mask(self, first: int, last: int) -> Tensor | None:
        """Make a mask: minus infinity beyond the ends of the windows in these slots, otherwise 0: (windows, 1, 1, frames)."""
        lengths = self._lengths[first:last]
        if all(length == self._frames for length in lengths):
            return None
        key = self.cross[0][0]
        return mask_beyond(torch.tensor(lengths, device=key.device), self._frames, key.dtype)


def mask_beyond(lengths: Tensor, places: int, dtype: torch.dtype) -> Tensor:
    """Make a mask: minus infinity at places from each length on, otherwise 0: (lengths, 1, 1, places)."""
    beyond = torch.arange(places, device=lengths.device) >= lengths[:, None]
    mask = torch.zeros(beyond.shape, dtype=dtype, device=lengths.device).masked_fill_(beyond, -torch.inf)
    return mask[:, None, None]


KeyValue = tuple["Tensor", "Tensor"]

_ROWS = 16  # of a step, about; what the weights are laid out for


@dataclass(frozen=True, slots=True)
class _DecoderLayer:
    qkv: Affine | QuantisedAffine
    out: Affine | QuantisedAffine
    cross_query: Affine | QuantisedAffine
    cross_key_value: Affine | QuantisedAffine
    cross_out: Affine | QuantisedAffine
    up: Affine | QuantisedAffine  # with its activation
    down: Affine | QuantisedAffine
    attention_norm: Norm
    cross_norm: Norm
    mlp_norm: Norm


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The result of the first pass over the initial tokens of windows.

    Attributes:
        hidden: (windows, tokens, width), before the last normalisation.
        own: per layer, keys and values of the self-attention, (windows, heads, tokens, size).
    """

    hidden: Tensor
    own: list[KeyValue]


class TextDecoder:
    """Computes logits from tokens and features; has no state except its weights.

    Args:
        model: a `whisper.model.Whisper`; it is read, never changed or hooked.
        device: where the weights go.
        precision: of weights, products, keys and values. The sum of the residuals is kept in float32.
    """

    def __init__(self, model: Any, device: torch.device, precision: Precision) -> None:
        source, dims = model.decoder, model.dims
        self.device, self.dtype = device, torch.float32 if precision.quantised else precision.dtype
        self.cache_dtype, self._attention = precision.cache_dtype, precision.attend_in_step
        self.heads, self.width, self.context = dims.n_text_head, dims.n_text_state, dims.n_text_ctx
        self.size = self.width // self.heads
        # By layer, the heads of the cross-attention that follow the audio.
        self.aligned: dict[int, list[int]] = {}
        for number, head in model.alignment_heads.to_dense().nonzero().tolist():
            self.aligned.setdefault(number, []).append(head)
        self.embedding = _compact(source.token_embedding.weight.detach()).to(device)
        self.positions = source.positional_embedding.detach().to(device).float()
        self.norm = self._norm(source.ln)
        vocabulary = source.token_embedding.weight.detach().to(device, self.dtype)
        self.vocabulary = (
            QuantisedAffine(vocabulary, None, torch.float32, rows=_ROWS)
            if precision.quantised
            else Affine(vocabulary, None).for_rows(_ROWS)
        )

        def layer(modules: list[Any], rows: int = _ROWS, **details: Any) -> Affine | QuantisedAffine:
            return linear(modules, device, precision, rows, **details)

        scale = self.size**-0.5
        self.layers = [
            _DecoderLayer(
                layer(_inputs(block.attn), first=scale),
                layer([block.attn.out]),
                layer(_inputs(block.cross_attn)[:1], first=scale),
                layer(_inputs(block.cross_attn)[1:], dims.n_audio_ctx, gives=self.cache_dtype),
                layer([block.cross_attn.out]),
                layer([block.mlp[0]], activation="gelu"),
                layer([block.mlp[2]]),
                self._norm(block.attn_ln),
                self._norm(block.cross_attn_ln),
                self._norm(block.mlp_ln),
            )
            for block in source.blocks
        ]

    def _norm(self, module: Any) -> Norm:
        return Norm.of(module, self.device, self.dtype)

    def cross(self, features: Sequence[Tensor], into: list[KeyValue] | None = None) -> list[KeyValue]:
        """Compute, for each layer, the keys and values of the features that all steps of a window attend to.

        Args:
            features: of each window, (frames, width); without `into` of one length.
            into: where to write them, as they are returned; there may be more frames, which stay as they are.

        Returns:
            Pairs of (windows, heads, frames, size).
        """
        if into is None:
            shape = (len(features), self.heads, len(features[0]), self.size)
            dtype = self.cache_dtype
            into = [
                (features[0].new_empty(shape, dtype=dtype), features[0].new_empty(shape, dtype=dtype))
                for _ in self.layers
            ]
        for window, one in enumerate(features):  # one after the other: what is on its way stays in a CPU's cache
            for layer, pair in zip(self.layers, into, strict=True):
                for kept, new in zip(pair, self._by_head(layer.cross_key_value(one[None]), 2), strict=True):
                    kept[window, :, : len(one)] = new[0]
        return into

    def prefill(
        self,
        tokens: Tensor,
        cross: list[KeyValue],
        mask: Tensor | None = None,
    ) -> Prefilled:
        """Process the initial tokens of windows.

        Args:
            tokens: (windows, tokens); shorter rows are padded at the end, and what the padding gives is to be ignored.
            cross: from `cross`, for the same windows.
            mask: added to the scores of the cross-attention, (windows, 1, 1, frames).
        """
        x = F.embedding(tokens, self.embedding).float() + self.positions[: tokens.shape[1]]
        own = []
        for layer, (cross_key, cross_value) in zip(self.layers, cross, strict=True):
            query, key, value = self._by_head(layer.qkv(layer.attention_norm(x)), 3)
            own.append((key, value))
            attended = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0)
            x = x + layer.out(attended.transpose(1, 2).flatten(2))
            (query,) = self._by_head(layer.cross_query(layer.cross_norm(x)), 1)
            x = x + layer.cross_out(self._attend(query, cross_key, cross_value, mask).transpose(1, 2).flatten(2))
            x = x + layer.down(layer.up(layer.mlp_norm(x)))
        return Prefilled(x, own)

    def first(self, token: int, cross: list[KeyValue], mask: Tensor) -> Tensor:
        """Process the first token of windows, once for each row of the mask: for parts of a window, which share its features.

        Args:
            token: of all rows; nothing precedes it, so it attends to itself alone.
            cross: from `cross`, for the same windows.
            mask: added to the scores of the cross-attention, (windows, 1, rows, frames).

        Returns:
            Hidden states, (windows, rows, width).
        """
        tokens = torch.full((len(mask), mask.shape[2]), token, device=self.device)
        x: Tensor = F.embedding(tokens, self.embedding).float() + self.positions[0]
        for layer, (cross_key, cross_value) in zip(self.layers, cross, strict=True):
            _, _, value = self._by_head(layer.qkv(layer.attention_norm(x)), 3)
            x = x + layer.out(value.transpose(1, 2).flatten(2))
            (query,) = self._by_head(layer.cross_query(layer.cross_norm(x)), 1)
            x = x + layer.cross_out(self._attend(query, cross_key, cross_value, mask).transpose(1, 2).flatten(2))
            x = x + layer.down(layer.up(layer.mlp_norm(x)))
        return x

    def step(self, tokens: Tensor, positions: Tensor, longest: int, cache: Cache) -> Tensor:
        """Process one token per row, and write its keys and values to the cache.

        Args:
            tokens: (rows,), in the order of the cache.
            positions: (rows,), the place of each token in its row.
            longest: at least one more than the largest of `positions`, known to the caller without asking the device.
            cache: of these rows.

        Returns:
            Hidden states, (rows, width).
        """
        rows = cache.rows
        everyone = torch.arange(rows, device=self.device)
        own = cache.own_now(longest)
        mask = mask_beyond(positions + 1, own[0][0].shape[2], self.cache_dtype)
        x: Tensor = F.embedding(tokens, self.embedding).float() + self.positions[positions]
        for number, (layer, (keys, values), (cross_key, cross_value)) in enumerate(
            zip(self.layers, own, cache.cross_now(), strict=True)
        ):
            qkv = layer.qkv(layer.attention_norm(x)).view(rows, 3, self.heads, self.size)
            keys[everyone, :, positions] = qkv[:, 1].to(self.cache_dtype)
            values[everyone, :, positions] = qkv[:, 2].to(self.cache_dtype)
            attended = self._attend(qkv[:, 0].unsqueeze(2), keys, values, mask)
            x = x + layer.out(attended.flatten(1))
            query = layer.cross_query(layer.cross_norm(x)).view(rows, self.heads, self.size)
            if number in self.aligned:
                cache.queries[number][everyone, :, positions] = query[:, self.aligned[number]].to(self.cache_dtype)
            query = query.view(-1, cache.group, self.heads, self.size).transpose(1, 2)
            attended = self._attend(query, cross_key, cross_value, cache.cross_mask)
            x = x + layer.cross_out(attended.transpose(1, 2).reshape(rows, self.width))
            x = x + layer.down(layer.up(layer.mlp_norm(x)))
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute float32 logits (..., vocabulary) from hidden states (..., width)."""
        return self.vocabulary(self.norm(hidden)).float()

    def _by_head(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Split (windows, places, parts * width) into `parts` views of (windows, heads, places, size)."""
        return x.view(*x.shape[:2], parts, self.heads, self.size).permute(2, 0, 3, 1, 4).unbind()

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        return self._attention(query.to(key.dtype), key, value, mask).to(self.dtype)


def _compact(weight: Tensor) -> Tensor:
    """Convert to half the size what loses nothing by it: OpenAI's weights are fp16, held as float32."""
    half = weight.to(torch.float16, copy=True)  # no longer mapped: the file may go
    return half if torch.equal(half.float(), weight.float()) else weight


def _inputs(attention: Any) -> list[Any]:
    """Collect the layers that compute queries, keys and values."""
    return [attention.query, attention.key, attention.value]
