"""Number formats for tests, chosen from timings that are made up, so that they are the same on every machine."""

import torch

from whisperd.engine.whisper_batched.precision import choose

TIMINGS = {
    "product fp32": 4.0,
    "product bf16": 3.0,
    "product int8": 1.0,
    "encoder fp32 fused": 2.0,
    "encoder fp32 head by head": 3.0,
    "encoder bf16 fused": 3.0,
    "encoder bf16 head by head": 4.0,
    "step fp32 fused": 2.0,
    "step fp32 written out": 1.0,
    "step bf16 fused": 3.0,
    "step bf16 written out": 2.5,
}


def precision(compute_type):
    """What is chosen for a compute type on a CPU with these timings."""
    return choose(torch.device("cpu"), compute_type, TIMINGS)
