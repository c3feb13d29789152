"""Measures how fast this processor computes what a Whisper model needs, and keeps the result for the next start.

Which kernel is fastest differs between processors by factors, and in both directions. All models of Whisper have heads of
64 and windows of 1500 frames; more layers, heads or width slow all kernels alike, so one measurement serves every model.
"""

from __future__ import annotations

import json
import logging
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import torch

from whisperd.core.process import processor_name
from whisperd.engine.whisper_batched.attention import ENCODER_ATTENTION, STEP_ATTENTION
from whisperd.engine.whisper_batched.linear import Affine, QuantisedAffine, can_quantise, has_instructions
from whisperd.spool import durable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

FILE: Final = "timings.json"
FRAMES, WIDTH, HEADS, SIZE = 1500, 512, 8, 64  # of the model `base`
STEP_WINDOWS = 8
ROUNDS = 5
SLOW_SECONDS = 0.1  # what takes this long is not measured again: it will not be chosen

_log = logging.getLogger(__name__)


def timings(directory: Path, *, keep: bool = True) -> dict[str, float]:
    """Return the seconds that each kernel takes here: as kept in `directory`, otherwise measured.

    The keys are `product <format>`, `encoder <format> <kernel>` and `step <format> <kernel>`.

    Args:
        directory: of the models.
        keep: write what was measured to the directory, so that each start makes the same choice.
    """
    here, kept = processor(), _read(directory)
    if here not in kept:
        kept[here] = measure()
        if keep:
            _write(directory, kept)
    return kept[here]


def processor() -> str:
    """Describe all that a timing depends on: processor, instructions in use, torch, and threads."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "all")
    return (
        f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}, oneDNN {limit}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    )


@torch.inference_mode()
def measure(clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Time every kernel on numbers of the shapes of a model, in turn; the best of several rounds counts.

    Args:
        clock: gives seconds.
    """
    best: dict[str, float] = {}
    for group in (_products, _encoder_attention, _step_attention):
        kernels = dict(group())
        for round_number in range(ROUNDS + 1):  # the first one warms up
            for name, kernel in list(kernels.items()):
                begun = clock()
                kernel()
                took = clock() - begun
                best[name] = min(best.get(name, took), took)
                if took > SLOW_SECONDS:
                    del kernels[name]
                elif not round_number:
                    del best[name]
    return best


def _formats() -> dict[str, torch.dtype]:
    """Return the formats that this CPU computes in hardware; elsewhere bf16 is emulated, and far slower than fp32."""
    has_bf16 = has_instructions("avx512_bf16") or has_instructions("amx_tile")
    return {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if has_bf16 else {})


def _products() -> Iterator[tuple[str, Callable[[], object]]]:
    x, weight, bias = torch.randn(FRAMES, WIDTH), torch.randn(4 * WIDTH, WIDTH), torch.randn(4 * WIDTH)
    for name, dtype in _formats().items():
        layer, given = Affine(weight.to(dtype), bias.to(dtype)).for_rows(FRAMES), x.to(dtype)
        yield f"product {name}", partial(layer, given)
    if can_quantise():
        quantised = QuantisedAffine(weight, bias, torch.float32, rows=FRAMES)
        yield "product int8", partial(quantised, x)


def _encoder_attention() -> Iterator[tuple[str, Callable[[], object]]]:
    for name, dtype in _formats().items():
        query, key, value = torch.randn(FRAMES, 3, HEADS, SIZE).to(dtype).permute(1, 2, 0, 3)[:, None]
        for kernel, attend in ENCODER_ATTENTION.items():
            yield f"encoder {name} {kernel}", partial(attend, query, key, value, None)


def _step_attention() -> Iterator[tuple[str, Callable[[], object]]]:
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        query = torch.randn(STEP_WINDOWS, HEADS, 1, SIZE).to(dtype)
        key, value = torch.randn(2, STEP_WINDOWS, HEADS, FRAMES, SIZE).to(dtype)
        for kernel, attend in STEP_ATTENTION.items():
            yield f"step {name} {kernel}", partial(attend, query, key, value, None)


def _read(directory: Path) -> dict[str, dict[str, float]]:
    try:
        with durable.Folder(directory) as folder:
            kept = json.loads(folder.read(FILE))
        return {str(key): {str(name): float(took) for name, took in each.items()} for key, each in kept.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _write(directory: Path, kept: Mapping[str, Mapping[str, float]]) -> None:
    try:
        durable.make_directory(directory)
        with durable.Folder(directory) as folder:
            durable.write(folder, FILE, json.dumps(kept, indent=2).encode() + b"\n")
    except OSError as error:
        _log.debug("%s is not kept in %s: %s", FILE, directory, error)  # it is measured again at the next start
