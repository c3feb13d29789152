"""The audio encoder of openai-whisper, with weights cast once, for windows of any length up to 30 s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch user reads

from whisperd.engine.whisper_batched.linear import Affine, Norm, linear

if TYPE_CHECKING:
    from torch import Tensor

    from whisperd.engine.whisper_batched.linear import QuantisedAffine
    from whisperd.engine.whisper_batched.precision import Precision


@dataclass(frozen=True, slots=True)
class _EncoderLayer:
    qkv: Affine | QuantisedAffine
    out: Affine | QuantisedAffine
    up: Affine | QuantisedAffine  # with its activation
    down: Affine | QuantisedAffine
    attention_norm: Norm
    mlp_norm: Norm


class AudioEncoder:
    """Turns mel spectrograms into features; has no state except its weights.

    Args:
        model: a `whisper.model.Whisper`; it is read, never changed or hooked.
        device: where the weights go.
        precision: of weights and products. The sum of the residuals is kept in float32.
    """

    def __init__(self, model: Any, device: torch.device, precision: Precision) -> None:
        source, dims, dtype = model.encoder, model.dims, precision.dtype
        self.dtype, self.device = dtype, device
        self.heads, self.width = dims.n_audio_head, dims.n_audio_state
        self.conv1, self.conv2 = (Affine.of(conv, device, dtype) for conv in (source.conv1, source.conv2))
        self.positions = source.positional_embedding.detach().to(device).float()
        taken = torch.float32 if precision.quantised else dtype  # by the products
        self.norm = Norm.of(source.ln_post, device, taken)
        self._attention = precision.attend_in_encoder
        rows, scale = dims.n_audio_ctx, (self.width // self.heads) ** -0.5
        self.layers = [
            _EncoderLayer(
                linear(
                    [block.attn.query, block.attn.key, block.attn.value],
                    device,
                    precision,
                    rows,
                    first=scale,
                    gives=dtype,
                ),
                linear([block.attn.out], device, precision, rows),
                linear([block.mlp[0]], device, precision, rows, activation="gelu"),
                linear([block.mlp[2]], device, precision, rows),
                Norm.of(block.attn_ln, device, taken),
                Norm.of(block.mlp_ln, device, taken),
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
        return self._attention(query, key, value, None).transpose(1, 2).flatten(2)
