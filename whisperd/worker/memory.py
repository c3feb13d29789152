"""How much memory of the GPU is in use."""

from __future__ import annotations

import sys


def device_bytes(device: str) -> int | None:
    """Memory in use on a GPU, by whomever; None where this process does not use it through torch.

    Asking must not be what makes torch set up CUDA: that alone takes hundreds of megabytes.
    """
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda") or not torch.cuda.is_initialized():
        return None
    free, total = torch.cuda.mem_get_info(device)
    return int(total - free)
