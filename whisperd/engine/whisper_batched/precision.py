"""Chooses the number formats and kernels in which a device computes, by how fast it is at each."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from whisperd.core.errors import BootError, OutOfMemory
from whisperd.engine.limits import is_out_of_memory
from whisperd.engine.whisper_batched.attention import ENCODER_ATTENTION, STEP_ATTENTION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from whisperd.engine.whisper_batched.attention import Attention

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRODUCTS_PER_LAYER = 3  # an encoder layer multiplies by 12 width^2 weights; what is timed, by 4 width^2
SMALLER_IS_WORTH = 1.1  # keys and values of half the size may be this much slower
ROUNDING_COSTS = 1.05  # a format with fewer digits must be this much faster, or there is no reason to round


@dataclass(frozen=True, slots=True)
class Precision:
    """The number formats and kernels of a model.

    Attributes:
        name: as in the configuration.
        dtype: of the encoder's attention, and of all products unless these are quantised.
        quantised: whether linear layers are computed in 8 bits.
        cache_dtype: of keys and values while decoding.
        encoder_attention: one of `ENCODER_ATTENTION`.
        step_attention: one of `STEP_ATTENTION`.
    """

    name: str
    dtype: torch.dtype
    quantised: bool
    cache_dtype: torch.dtype
    encoder_attention: str = "fused"
    step_attention: str = "fused"

    def __str__(self) -> str:
        """Describe it for a log line."""
        names = {dtype: name for name, dtype in DTYPES.items()}
        return (
            f"{self.name}, encoder attention {names[self.dtype]} {self.encoder_attention}, "
            f"keys and values {names[self.cache_dtype]} {self.step_attention}"
        )

    @property
    def attend_in_encoder(self) -> Attention:
        """The encoder's attention."""
        return ENCODER_ATTENTION[self.encoder_attention]

    @property
    def attend_in_step(self) -> Attention:
        """The decoder's attention."""
        return STEP_ATTENTION[self.step_attention]


def choose(device: torch.device, compute_type: str, timings: Mapping[str, float]) -> Precision:
    """Choose what is fastest for a compute type on `device`.

    `auto` takes of fp32, bf16 and int8 the fastest on a CPU, and fp16 on a GPU. The error rates of int8, and the texts
    on which they were measured, are in NOTES.md.

    Args:
        device: a GPU, or the CPU.
        compute_type: as configured.
        timings: of this CPU, from `timings.timings`; not needed for a GPU.

    Raises:
        BootError: an unknown type, or one that the device cannot compute in.
    """
    if compute_type not in {"auto", "int8", *DTYPES}:
        raise BootError(f"unknown compute type {compute_type!r}", hint=f"use auto, int8, {', '.join(DTYPES)}")
    if device.type == "cuda":
        if compute_type == "int8":
            raise BootError(f"int8 cannot be computed on {device}", hint="use compute_type: auto")
        name = "fp16" if compute_type == "auto" else compute_type
        return Precision(name, DTYPES[name], quantised=False, cache_dtype=DTYPES[name])
    if compute_type == "fp16":
        raise BootError(f"fp16 cannot be computed on {device}", hint="use compute_type: auto, bf16 or fp32")
    can_quantise = "product int8" in timings
    if compute_type == "int8" and not can_quantise:
        raise BootError(
            f"int8 cannot be computed on {device} by this torch",
            hint="use compute_type: auto, or engine: faster-whisper",
        )
    measured = [name for name in ("fp32", "bf16") if f"product {name}" in timings]
    if compute_type in DTYPES:
        candidates = [(compute_type, compute_type)]
    else:
        candidates = [("int8", name) for name in measured] if can_quantise else []
        if compute_type == "auto":
            candidates += [(name, name) for name in measured]

    def seconds(candidate: tuple[str, str]) -> float:
        products, attention = candidate
        taken = PRODUCTS_PER_LAYER * timings.get(f"product {products}", 0.0)
        taken += _fastest(timings, f"encoder {attention}")[1]
        return taken if attention == "fp32" else taken * ROUNDING_COSTS

    name, attention = min(candidates, key=seconds)
    cache = compute_type if compute_type in DTYPES else _cache_format(timings)
    return Precision(
        name,
        DTYPES[attention],
        quantised=name == "int8",
        cache_dtype=DTYPES[cache],
        encoder_attention=_fastest(timings, f"encoder {attention}")[0],
        step_attention=_fastest(timings, f"step {cache}")[0],
    )


def weight_bytes(model: Any, precision: Precision) -> int:
    """Compute how much memory the weights of a `whisper.model.Whisper` take in these formats; the embedding stays in fp16."""
    each = 1 if precision.quantised else precision.dtype.itemsize
    embedding: int = model.decoder.token_embedding.weight.numel()
    weights: int = sum(weight.numel() for weight in model.parameters())
    return weights * each + 2 * embedding


def _cache_format(timings: Mapping[str, float]) -> str:
    small, large = (_fastest(timings, f"step {name}")[1] for name in ("bf16", "fp32"))
    return "bf16" if small <= SMALLER_IS_WORTH * large else "fp32"


def _fastest(timings: Mapping[str, float], operation: str) -> tuple[str, float]:
    """Find the fastest kernel of an operation, and its seconds; where none was timed, the fused one."""
    found = {name.removeprefix(f"{operation} "): took for name, took in timings.items() if name.startswith(operation)}
    return min(found.items(), key=lambda one: one[1], default=("fused", 0.0))


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
