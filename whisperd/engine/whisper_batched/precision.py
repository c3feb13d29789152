"""Chooses the number format in which a device computes, and computes products in 8 bits.

The integers are those of Jacob et al., arXiv:1712.05877: weights have a scale for each output; inputs have one scale and
one zero point for the whole tensor, taken from its extremes at each call. Which products are computed in 8 bits, and
why only those, is in NOTES.md.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch

from whisperd.core.errors import BootError, OutOfMemory
from whisperd.engine.limits import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        """Compute the layer: float32 (..., in) becomes (..., out)."""
        levels, scale, zero = _quantise(x)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            levels, scale, zero, self._packed, self._scales, self._zeros, self._bias,
            1.0, 0, self._dtype, self._activation, [], "none",
        )  # fmt: skip
        return product


def _quantise(x: Tensor) -> tuple[Tensor, float, int]:
    """Convert a tensor to integers from 0 to 255; return them, the step between two, and the one that stands for 0.0."""
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
    """Whether this CPU can multiply integers of 8 bits in hardware, and this torch supports it.

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


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Precision:
    """The number format in which a model computes.

    Attributes:
        name: as in the configuration.
        dtype: of weights and products.
        quantised: whether the encoder's widest products are computed in 8 bits instead.
    """

    name: str
    dtype: torch.dtype
    quantised: bool = False


def resolve_compute_type(device: torch.device, compute_type: str = "auto") -> Precision:
    """Find the precision for a compute type on `device`; `auto` is the fastest that it has hardware for and that loses nothing.

    On a CPU without avx512_bf16 or amx, bf16 is emulated and slower than fp32, so `auto` takes fp32 there. fp16 is for
    GPUs alone: CPU kernels for it are missing or slow. int8 is for CPUs alone, and has to be asked for: it has been
    measured with `base` only, and larger models are known for larger outliers.

    Raises:
        BootError: an unknown type, or one that the device cannot compute in.
    """
    on_cuda = device.type == "cuda"
    fastest = "fp16" if on_cuda else "bf16" if _cpu_has_bf16() else "fp32"
    if compute_type == "auto":
        compute_type = fastest
    if compute_type == "int8":
        if on_cuda or not can_quantise():
            raise BootError(
                f"int8 cannot be computed on {device}", hint="use compute_type: auto, or engine: faster-whisper"
            )
        return Precision("int8", DTYPES[fastest], quantised=True)
    if compute_type not in DTYPES:
        raise BootError(f"unknown compute type {compute_type!r}", hint=f"use auto, int8, {', '.join(DTYPES)}")
    if compute_type == "fp16" and not on_cuda:
        raise BootError(f"fp16 cannot be computed on {device}", hint="use compute_type: auto, bf16 or fp32")
    return Precision(compute_type, DTYPES[compute_type])


def _cpu_has_bf16() -> bool:
    # The names of the flags differ between torch versions; a missing one reads as "no".
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


@contextmanager
def memory_errors(doing: str) -> Iterator[None]:
    """Turn what torch and the interpreter raise for want of memory into `OutOfMemory`.

    Raises:
        OutOfMemory: on CUDA or in main memory.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error) or "allocation refused").splitlines()[0]
        hint = "lower the batch size, or use a smaller model"
        raise OutOfMemory(f"no memory left while {doing}: {reason}", hint=hint) from error
