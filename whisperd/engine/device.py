"""Where a model runs: the device, its threads, and how it says that memory ran out."""

from __future__ import annotations

from contextlib import suppress

import torch

from whisperd.errors import BootError


def limit_threads(threads: int) -> None:
    """Keep torch of this process to so many threads; several workers share the machine."""
    torch.set_num_threads(threads)
    with suppress(RuntimeError):  # allowed once per process, and only before the first parallel work
        torch.set_num_interop_threads(1)


def find_device(asked: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:N` stands for; `auto` is the first GPU, else the CPU.

    Raises:
        BootError: there is no such device.
    """
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise BootError(f"device {asked!r} is not known", hint="use auto, cpu, cuda or cuda:N") from error
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise BootError(f"device {asked!r} is not supported", hint="use auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = device.index or 0
    if index >= count:
        hint = "use cpu or auto, or check the NVIDIA driver and that torch is a CUDA build"
        raise BootError(f"device {asked!r} is not there: torch sees {count} CUDA devices", hint=hint)
    return torch.device("cuda", index)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the device or the machine: torch says so by type, or only in words."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    phrases = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in phrases)
