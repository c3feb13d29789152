"""Which number format a device computes in, and out-of-memory as the error of the house."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from whisperd.engine.batched.quantised import can_quantise
from whisperd.engine.device import is_out_of_memory
from whisperd.errors import BootError, OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Iterator

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Precision:
    """In which numbers a model computes.

    Attributes:
        name: as in the configuration.
        dtype: of weights and products.
        quantised: whether the encoder's widest products are computed in 8 bits instead.
    """

    name: str
    dtype: torch.dtype
    quantised: bool = False


def resolve_compute_type(device: torch.device, compute_type: str = "auto") -> Precision:
    """What a compute type means on `device`; `auto` is the fastest that it computes in hardware and that loses nothing.

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
