"""The text decoder of openai-whisper with weights cast once, fused products and caches of keys and values.

Rows of one batch stand at positions of their own, so windows with prompts of any length, in any language, can be
decoded together and can join and leave at any step. What is at hand after each of openai-whisper's steps is the same,
only its order of summation differs.

A step is bound by memory: weights and vocabulary are read once for all rows, the cross-attention's keys and values
once for all rows of a window (18 MB for `base` in bf16). With one query `scaled_dot_product_attention` needs 4 to 7
times as long on a CPU as the two products written out, so they are.

What was tried for `base` in bf16, one thread of a CPU with avx512_bf16 (a step takes 54 ms for 16 windows, of which
cross-attention 24, vocabulary 11, self-attention 4, search and rules 3):

- Scores from the features themselves, `(q W_k) X^T`, which all layers and heads share, so that half is read and nothing
  is kept: promised 20 ms instead of 24, took 32 at 16 windows. On a GPU, which has operations to spare, it may pay.
- Exactness, by the divergence from fp32 over 791 tokens: 0.00045 as it is; encoder in fp32 0.00054; attention in fp32
  0.00046; mean key taken out 0.00045; residuals of the encoder in bf16 0.00052. Only the vocabulary product in fp32
  helps (0.00028; 3 instead of 9 tokens differ), and would read twice as much: none is worth it.
- Keys and values of two frames at a time averaged, so that half is read: a third off the steps of 70 windows, and 389 words of
  4,062 wrong instead of 346. Huge pages for the caches: nothing.
- Rows of a bf16 product are the same bits in a batch of any size; fp32 products differ in the last bits below 4 rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch user reads

from whisperd.engine.batched.cache import mask_beyond
from whisperd.engine.batched.encoder import Affine, Norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from whisperd.engine.batched.cache import Cache

KeyValue = tuple["Tensor", "Tensor"]

_ROWS = 16  # of a step, about; what the weights are laid out for


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: Affine
    out: Affine
    cross_query: Affine
    cross_key_value: Affine
    cross_out: Affine
    up: Affine
    down: Affine
    attention_norm: Norm
    cross_norm: Norm
    mlp_norm: Norm


@dataclass(frozen=True, slots=True)
class Prefilled:
    """What a first pass over the initial tokens leaves behind.

    Attributes:
        hidden: (windows, tokens, width), before the last normalisation.
        own: per layer, keys and values of the self-attention, (windows, heads, tokens, size).
        scores: what was asked for by `watch`: per head (windows, tokens, frames), scaled, before the softmax, float32.
    """

    hidden: Tensor
    own: list[KeyValue]
    scores: list[Tensor]


class TextDecoder:
    """Tokens and features in, logits out; holds weights only.

    Args:
        model: a `whisper.model.Whisper`; it is read, never changed or hooked.
        device: where the weights go.
        dtype: of weights and products. The sum of the residuals is kept in float32.
    """

    def __init__(self, model: Any, device: torch.device, dtype: torch.dtype) -> None:
        source, dims = model.decoder, model.dims
        self.device, self.dtype = device, dtype
        self.heads, self.width, self.context = dims.n_text_head, dims.n_text_state, dims.n_text_ctx
        self.size = self.width // self.heads
        scale = self.size**-0.5
        self.embedding = source.token_embedding.weight.detach().to(device, dtype)
        self.positions = source.positional_embedding.detach().to(device).float()
        self.vocabulary = Affine(self.embedding, None).for_rows(_ROWS)
        self.norm = Norm.of(source.ln, device, dtype)
        self.layers = [
            _Layer(
                Affine.fused(_inputs(block.attn), device, dtype, scale).for_rows(_ROWS),
                Affine.of(block.attn.out, device, dtype).for_rows(_ROWS),
                Affine.fused(_inputs(block.cross_attn)[:1], device, dtype, scale).for_rows(_ROWS),
                Affine.fused(_inputs(block.cross_attn)[1:], device, dtype).for_rows(dims.n_audio_ctx),
                Affine.of(block.cross_attn.out, device, dtype).for_rows(_ROWS),
                Affine.of(block.mlp[0], device, dtype).for_rows(_ROWS),
                Affine.of(block.mlp[2], device, dtype).for_rows(_ROWS),
                Norm.of(block.attn_ln, device, dtype),
                Norm.of(block.cross_attn_ln, device, dtype),
                Norm.of(block.mlp_ln, device, dtype),
            )
            for block in source.blocks
        ]

    def cross(self, features: Sequence[Tensor], into: list[KeyValue] | None = None) -> list[KeyValue]:
        """Per layer, keys and values that all steps of a window attend to.

        Args:
            features: of each window, (frames, width); without `into` of one length.
            into: where to write them, as they are returned; there may be more frames, which stay as they are.

        Returns:
            Pairs of (windows, heads, frames, size).
        """
        if into is None:
            shape = (len(features), self.heads, len(features[0]), self.size)
            into = [(features[0].new_empty(shape), features[0].new_empty(shape)) for _ in self.layers]
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
        *,
        watch: Sequence[tuple[int, int]] = (),
    ) -> Prefilled:
        """Pass over the first tokens of windows.

        Args:
            tokens: (windows, tokens); shorter rows are padded at the end, and what the padding gives is to be ignored.
            cross: from `cross`, for the same windows.
            mask: added to the scores of the cross-attention, (windows, 1, 1, frames).
            watch: (layer, head) pairs of the cross-attention whose scores are wanted, without the mask.
        """
        x = F.embedding(tokens, self.embedding).float() + self.positions[: tokens.shape[1]]
        own, scores = [], []
        for number, (layer, (cross_key, cross_value)) in enumerate(zip(self.layers, cross, strict=True)):
            query, key, value = self._by_head(layer.qkv(layer.attention_norm(x)), 3)
            own.append((key, value))
            attended = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0)
            x = x + layer.out(attended.transpose(1, 2).flatten(2))
            (query,) = self._by_head(layer.cross_query(layer.cross_norm(x)), 1)
            scores += [
                query[:, head].float() @ cross_key[:, head].float().transpose(-1, -2)
                for watched, head in watch
                if watched == number
            ]
            x = x + layer.cross_out(self._attend(query, cross_key, cross_value, mask).transpose(1, 2).flatten(2))
            x = x + layer.down(F.gelu(layer.up(layer.mlp_norm(x))))
        return Prefilled(x, own, scores)

    def step(self, tokens: Tensor, positions: Tensor, longest: int, cache: Cache) -> Tensor:
        """Pass over one token a row, whose keys and values are written to the cache.

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
        mask = mask_beyond(positions + 1, own[0][0].shape[2], self.dtype)
        x: Tensor = F.embedding(tokens, self.embedding).float() + self.positions[positions]
        for layer, (keys, values), (cross_key, cross_value) in zip(self.layers, own, cache.cross_now(), strict=True):
            qkv = layer.qkv(layer.attention_norm(x)).view(rows, 3, self.heads, self.size)
            keys[everyone, :, positions] = qkv[:, 1]
            values[everyone, :, positions] = qkv[:, 2]
            attended = self._attend(qkv[:, 0].unsqueeze(2), keys, values, mask)
            x = x + layer.out(attended.flatten(1))
            query = layer.cross_query(layer.cross_norm(x)).view(-1, cache.group, self.heads, self.size).transpose(1, 2)
            attended = self._attend(query, cross_key, cross_value, cache.cross_mask)
            x = x + layer.cross_out(attended.transpose(1, 2).reshape(rows, self.width))
            x = x + layer.down(F.gelu(layer.up(layer.mlp_norm(x))))
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states of shape (..., width) to float32 logits of shape (..., vocabulary)."""
        return self.vocabulary(self.norm(hidden)).float()

    def _by_head(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(windows, places, parts * width) to `parts` views of (windows, heads, places, size)."""
        return x.view(*x.shape[:2], parts, self.heads, self.size).permute(2, 0, 3, 1, 4).unbind()

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.device.type == "cuda":
            return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
        scores = query @ key.transpose(-1, -2)
        if mask is not None:
            scores += mask
        return torch.softmax(scores, -1) @ value


def _inputs(attention: Any) -> list[Any]:
    """What makes queries, keys and values."""
    return [attention.query, attention.key, attention.value]
