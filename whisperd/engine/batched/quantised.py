"""Products in 8 bits, for those of the encoder that lose nothing by it.

The integers are those of Jacob et al., arXiv:1712.05877: weights with a scale for each output, inputs with one scale and
one zero point for the whole tensor, taken from its extremes at each call.

What was tried for `base`, windows of 26 s on two cores with avx512_vnni. The product 512 -> 1536 takes 4.0 ms (bf16 5.8),
512 -> 2048 takes 4.9 (8.1), 2048 -> 512 takes 4.1 (9.1). How far the features then are from those in fp32 (bf16: 0.016):
queries, keys and values 0.056, the wide half of the perceptron 0.046, the output of the attention 0.034, but the narrow half
0.83, because its input reaches 200 in a few places. With the first two in 8 bits 1,030 words of 5,788 in six languages
are wrong instead of 1,049, with the attention's output as well 1,119; with all of them 8.6 % of two languages became 10.5.
The product with the vocabulary takes 1.6 ms for 16 rows (4.9), but 8.6 % became 9.1. So only the first two are: six readings,
engine alone, 36.5 s, then 34.4.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 255
WEIGHT_LEVELS = 127


class QuantisedAffine:
    """A linear layer whose product is computed in 8 bits.

    Args:
        weight: (out, in), of any float type.
        bias: (out,), or None.
        dtype: of what comes out.
        activation: "none", or "gelu" to have it applied.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, activation: str = "none") -> None:
        self._dtype, self._activation = dtype, activation
        self._bias = None if bias is None else bias.float()
        self._scales = weight.float().abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / WEIGHT_LEVELS
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        levels = (weight.float() / self._scales[:, None]).round().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(levels, None)

    def __call__(self, x: Tensor) -> Tensor:
        """Float32 of shape (..., in) to (..., out)."""
        levels, scale, zero = _quantise(x)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            levels, scale, zero, self._packed, self._scales, self._zeros, self._bias,
            1.0, 0, self._dtype, self._activation, [], "none",
        )  # fmt: skip
        return product


def _quantise(x: Tensor) -> tuple[Tensor, float, int]:
    """The tensor as integers from 0 to 255, the step between two of them, and which of them is 0.0."""
    x = x.contiguous()
    low, high = (float(end) for end in torch.aminmax(x))
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / LEVELS, torch.finfo(torch.float32).tiny)
    zero = round(-low / scale)
    quantised = torch.quantize_per_tensor(x, scale, zero, torch.quint8)
    levels = torch.empty(0, dtype=torch.uint8)
    levels.set_(quantised.untyped_storage(), 0, x.shape, x.stride())  # `int_repr` would copy, on one core
    return levels, scale, zero


@cache
def can_quantise() -> bool:
    """Whether this CPU multiplies integers of 8 bits in hardware, and this torch lets it.

    The operators are those that torch's compiler uses for a quantised model; they have no public name.
    """
    if not getattr(torch.cpu, "_is_vnni_supported", bool)():
        return False
    try:
        with warnings.catch_warnings():  # torch announces that it will drop them: then this function will say no
            warnings.simplefilter("ignore")
            QuantisedAffine(torch.ones(16, 16), torch.zeros(16), torch.bfloat16, "gelu")(torch.ones(2, 16))
    except (AttributeError, RuntimeError):
        return False
    return True
