"""Linear layers with weights cast, packed or quantised once, and layer normalisation.

In 8 bits, weights have a scale for each output and inputs a scale for each row (arXiv:2208.07339, section 2.1), so that no
row depends on the rows beside it. Measurements are in NOTES.md.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch user reads

if TYPE_CHECKING:
    from torch import Tensor

    from whisperd.engine.whisper_batched.precision import Precision


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
        weight = torch.cat([m.weight.detach().float() * scale for m, scale in zip(modules, scales, strict=True)])
        bias = torch.cat(
            [
                torch.zeros(len(m.weight)) if m.bias is None else m.bias.detach().float().cpu() * scale
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
    """Reorder a weight (out, in) as oneDNN reads it; unchanged if that is not supported.

    `linear` brings it into that order at every call, which for 16 rows takes as long as the product. The results are
    the same bits. The operators are those that torch's own compiler uses for a frozen model; they have no public name.
    """
    if weight.device.type != "cpu" or weight.dtype not in (torch.bfloat16, torch.float32):
        return weight
    try:
        found: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)  # noqa: SLF001
        torch.ops.mkldnn._linear_pointwise(weight[:1], found, None, "none", [], "")  # noqa: SLF001
    except (AttributeError, RuntimeError):
        return weight
    return found


class QuantisedAffine:
    """A linear layer on a CPU whose product is computed in 8 bits.

    Args:
        weight: (out, in), of any float type.
        bias: (out,), or None.
        dtype: of what comes out.
        activation: "none", or "gelu" to have it applied.
        rows: about as many as there will be.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, activation: str = "none", rows: int = 1
    ) -> None:
        self._dtype, self._activation = dtype, activation
        self._bias = None if bias is None else bias.float()
        scales = weight.float().abs().amax(1).clamp_min(_TINY) / _LEVELS
        with (
            warnings.catch_warnings()
        ):  # torch announces once that it will drop these types: then `can_quantise` says no
            warnings.simplefilter("ignore")
            many = rows >= _MANY_ROWS and has_instructions("vnni")
            self._multiply: _OneDnn | _Fbgemm = _OneDnn(weight, scales) if many else _Fbgemm(weight, scales)
            self(torch.zeros(1, weight.shape[1]))

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the layer: (..., in) becomes (..., out)."""
        x = x.float()
        largest = torch.maximum(x.amax(-1, keepdim=True), -x.amin(-1, keepdim=True)).clamp_min_(_TINY)
        product = self._multiply(x, largest)
        # In place: to take and give back megabytes at each call costs as much as the product.
        if self._bias is None:
            product.mul_(largest)
        else:
            torch.addcmul(self._bias, product, largest, out=product)
        if self._activation == "gelu":
            torch.ops.aten.gelu_(product)
        return product.to(self._dtype)


_LEVELS = 127
_TINY = torch.finfo(torch.float32).tiny
_MANY_ROWS = 256  # from here on oneDNN is faster than fbgemm; for a few rows it is the other way round


class _OneDnn:
    """A product through oneDNN, which uses AMX or avx512_vnni."""

    def __init__(self, weight: Tensor, scales: Tensor) -> None:
        levels = (weight.float() / scales[:, None]).round().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(levels, None)
        self._scales, self._zeros = scales / _LEVELS, torch.zeros(len(weight), dtype=torch.int64)

    def __call__(self, x: Tensor, largest: Tensor) -> Tensor:
        """Multiply rows that have been divided by their largest values."""
        quantised = torch.quantize_per_tensor(x * (_LEVELS / largest), 1.0, _LEVELS + 1, torch.quint8)
        levels = torch.empty(0, dtype=torch.uint8)
        levels.set_(quantised.untyped_storage(), 0, x.shape, x.stride())  # `int_repr` would copy, on one core
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            levels, 1.0, _LEVELS + 1, self._packed, self._scales, self._zeros, None,
            1.0, 0, torch.float32, "none", [], "none",
        )  # fmt: skip
        return product


class _Fbgemm:
    """A product through fbgemm, which any CPU with AVX2 can compute."""

    def __init__(self, weight: Tensor, scales: Tensor) -> None:
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        levels = torch.quantize_per_channel(weight.float(), scales, zeros, 0, torch.qint8)
        self._packed = torch.ops.quantized.linear_prepack(levels, None)
        # Without VNNI two products are added in 16 bits, where 255 x 127 twice is too much: 7 bits are left for the inputs.
        self._levels = _LEVELS if has_instructions("vnni") else _LEVELS // 2

    def __call__(self, x: Tensor, largest: Tensor) -> Tensor:
        """Multiply rows that have been divided by their largest values."""
        product: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x / largest, 1 / self._levels, self._levels + 1, self._packed
        )
        return product


def has_instructions(name: str) -> bool:
    """Whether this CPU has one of the extensions of AVX-512 or AMX that torch looks for, and torch may use it.

    The names of the probes differ between torch versions; a missing one reads as "no".
    """
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and bool(
        getattr(torch.cpu, f"_is_{name}_supported", bool)()
    )


@cache
def can_quantise() -> bool:
    """Whether this CPU and this torch can compute products in 8 bits.

    The operators have no public name; newer releases of torch may drop them.
    """
    try:
        for rows in (1, _MANY_ROWS):
            QuantisedAffine(torch.ones(16, 16), torch.zeros(16), torch.float32, rows=rows)
    except (AttributeError, RuntimeError):
        return False
    return True


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


def linear(
    modules: list[Any],
    device: torch.device,
    precision: Precision,
    rows: int,
    *,
    first: float = 1.0,
    activation: str = "none",
    gives: torch.dtype = torch.float32,
) -> Affine | QuantisedAffine:
    """Make one layer of Linear modules with the same input, in the number format of a precision.

    Args:
        modules: joined as `Affine.fused` does.
        device: where the weights go.
        precision: of weights and products.
        rows: what the weights are laid out for.
        first: factor of what the first module gives.
        activation: "none" or "gelu".
        gives: what comes out of a product in 8 bits; otherwise it is the precision's own.
    """
    if precision.quantised:
        exact = Affine.fused(modules, device, torch.float32, first)
        return QuantisedAffine(exact.weight, exact.bias, gives, activation, rows)
    return replace(Affine.fused(modules, device, precision.dtype, first).for_rows(rows), activation=activation)
