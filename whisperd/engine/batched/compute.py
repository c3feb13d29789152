"""Which number format a device computes in, and out-of-memory as the error of the house."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from whisperd.engine.device import is_out_of_memory
from whisperd.errors import BootError, OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Iterator

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_compute_type(device: torch.device, compute_type: str = "auto") -> torch.dtype:
    """The dtype of weights and products; `auto` is the fastest that `device` computes in hardware.

    On a CPU without avx512_bf16 or amx, bf16 is emulated and slower than fp32, so `auto` takes fp32 there. fp16 is for
    GPUs alone: CPU kernels for it are missing or slow.

    Raises:
        BootError: an unknown type, or one that the device cannot compute in.
    """
    on_cuda = device.type == "cuda"
    if compute_type == "auto":
        if on_cuda:
            return torch.float16
        return torch.bfloat16 if _cpu_has_bf16() else torch.float32
    if compute_type not in DTYPES:
        raise BootError(f"unknown compute type {compute_type!r}", hint=f"use auto, {', '.join(DTYPES)}")
    if compute_type == "fp16" and not on_cuda:
        raise BootError(f"fp16 cannot be computed on {device}", hint="use compute_type: auto, bf16 or fp32")
    return DTYPES[compute_type]


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
