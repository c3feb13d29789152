"""The audio encoder of openai-whisper, with weights cast once, for windows of any length up to 30 s."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch user reads

from whisperd.engine.whisper_batched.precision import QuantisedAffine

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Affine:
    """A linear layer or convolution, with weight (out, in) or (out, in, kernel), bias (out,), and `activation` "none" or "gelu"."""

    weight: Tensor
    bias: Tensor | None
    activation: str = "none"

    @classmethod
    def of(cls, module: Any, device: torch.device, dtype: torch.dtype) -> Affine:
        """Cast the weights of a Linear or Conv1d once, since openai-whisper's own modules cast them at every call."""
        bias = None if module.bias is None else module.bias.detach().to(device, dtype)
        return cls(module.weight.detach().to(device, dtype), bias)

    @classmethod
    def fused(cls, modules: list[Any], device: torch.device, dtype: torch.dtype, first: float = 1.0) -> Affine:
        """Join several Linear modules with the same input into one; a missing bias counts as zero.

        What the first one gives is multiplied by `first`: the scale of attention goes with the queries, once and for
        all. Whisper's is 1/8, which changes no digit.
        """
        scales = [first, *[1.0] * (len(modules) - 1)]
        weight = torch.cat([m.weight.detach() * scale for m, scale in zip(modules, scales, strict=True)])
        bias = torch.cat(
            [
                torch.zeros(len(m.weight)) if m.bias is None else m.bias.detach().cpu() * scale
                for m, scale in zip(modules, scales, strict=True)
            ]
        )
        return cls(weight.to(device, dtype), bias.to(device, dtype))

    def for_rows(self, rows: int) -> Affine:
        """Return the layer packed for about this number of rows, if torch and the CPU support that."""
        return replace(self, weight=packed(self.weight, rows))

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the layer: (..., in) becomes (..., out)."""
        if self.weight.is_mkldnn:
            product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")  # noqa: SLF001
        else:
            product = F.linear(x, self.weight, self.bias)
        return F.gelu(product) if self.activation == "gelu" else product


def packed(weight: Tensor, rows: int) -> Tensor:
    """Reorder a bf16 weight (out, in) as oneDNN reads it; unchanged if that is not supported.

    `linear` brings it into that order at every call, which for 16 rows takes as long as the product: the vocabulary of
    `base` 10.4 ms, packed 5.4. The results are the same bits. The operators are those that torch's own compiler uses
    for a frozen model; they have no public name.
    """
    if weight.device.type != "cpu" or weight.dtype is not torch.bfloat16:
        return weight
    try:
        found: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)  # noqa: SLF001
        torch.ops.mkldnn._linear_pointwise(weight[:1], found, None, "none", [], "")  # noqa: SLF001
    except (AttributeError, RuntimeError):
        return weight
    return found


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer normalisation, computed in float32 whatever comes in, as openai-whisper does, and given out as `dtype`."""

    weight: Tensor
    bias: Tensor
    dtype: torch.dtype

    @classmethod
    def of(cls, module: Any, device: torch.device, dtype: torch.dtype) -> Norm:
        """Take the weights of a LayerNorm, in float32."""
        return cls(module.weight.detach().to(device).float(), module.bias.detach().to(device).float(), dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise (..., width) of any float type; the result has the same shape in `dtype`."""
        return F.layer_norm(x.float(), self.weight.shape, self.weight, self.bias).to(self.dtype)


@dataclass(frozen=True, slots=True)
class _EncoderLayer:
    qkv: Affine | QuantisedAffine
    out: Affine
    up: Affine | QuantisedAffine  # with its activation
    down: Affine
    attention_norm: Norm
    mlp_norm: Norm


class AudioEncoder:
    """Turns mel spectrograms into features; has no state except its weights.

    Args:
        model: a `whisper.model.Whisper`; it is read, never changed or hooked.
        device: where the weights go.
        dtype: of weights, products and features. The sum of the residuals is kept in float32.
        quantised: compute the products that lose nothing by it in 8 bits; for a CPU that `can_quantise`.
    """

    def __init__(self, model: Any, device: torch.device, dtype: torch.dtype, *, quantised: bool = False) -> None:
        source, dims = model.encoder, model.dims
        self.dtype, self.device = dtype, device
        self.heads, self.width = dims.n_audio_head, dims.n_audio_state
        self.conv1, self.conv2 = (Affine.of(conv, device, dtype) for conv in (source.conv1, source.conv2))
        self.positions = source.positional_embedding.detach().to(device).float()
        self.norm = Norm.of(source.ln_post, device, dtype)
        rows = dims.n_audio_ctx
        kept = torch.float32 if quantised else dtype  # what goes into a product of 8 bits

        def products(modules: list[Any], first: float = 1.0, activation: str = "none") -> Affine | QuantisedAffine:
            affine = Affine.fused(modules, device, kept, first)
            if quantised:
                return QuantisedAffine(affine.weight, affine.bias, dtype, activation)
            return replace(affine.for_rows(rows), activation=activation)

        self.layers = [
            _EncoderLayer(
                products([block.attn.query, block.attn.key, block.attn.value], (self.width // self.heads) ** -0.5),
                Affine.of(block.attn.out, device, dtype).for_rows(rows),
                products([block.mlp[0]], activation="gelu"),
                Affine.of(block.mlp[2], device, dtype).for_rows(rows),
                Norm.of(block.attn_ln, device, kept),
                Norm.of(block.mlp_ln, device, kept),
            )
            for block in source.blocks
        ]

    def __call__(self, mel: Tensor) -> Tensor:
        """Encode windows of one length.

        Args:
            mel: (windows, n_mels, frames), frames of 10 ms, an even number of at most 3000. Fewer than 3000 frames run
                a shorter encoder, which the model was not trained for: keep a few seconds of silence behind the speech.

        Returns:
            Features of shape (windows, frames / 2, width).
        """
        mel = mel.to(self.device, self.dtype)
        # One window at a time keeps the activations in a CPU's cache; a GPU wants them all at once.
        pieces = [mel] if self.device.type == "cuda" else torch.split(mel, 1)
        return torch.cat([self._encode(piece) for piece in pieces])

    def _encode(self, mel: Tensor) -> Tensor:
        x = F.gelu(F.conv1d(mel, self.conv1.weight, self.conv1.bias, padding=1))
        x = F.gelu(F.conv1d(x, self.conv2.weight, self.conv2.bias, stride=2, padding=1)).transpose(1, 2)
        # As it comes from the convolution, frame beside frame, each sum and norm would gather its rows: 7 % of the whole.
        x = x.contiguous() + self.positions[: x.shape[1]]
        for layer in self.layers:
            x += layer.out(self._attend(layer.qkv(layer.attention_norm(x))))
            x += layer.down(layer.up(layer.mlp_norm(x)))
        return self.norm(x)

    def _attend(self, qkv: Tensor) -> Tensor:
        query, key, value = qkv.view(*qkv.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.device.type == "cuda":
            return F.scaled_dot_product_attention(query, key, value, scale=1.0).transpose(1, 2).flatten(2)
        windows, _, frames, size = query.shape
        scores = query.new_empty(frames, frames)
        attended: Tensor = query.new_empty(windows, frames, self.heads, size)
        for window in range(windows):
            for head in range(self.heads):
                torch.mm(query[window, head], key[window, head].T, out=scores)
                torch.softmax(scores, -1, out=scores)
                torch.mm(scores, value[window, head], out=attended[window, :, head])
        return attended.flatten(2)
