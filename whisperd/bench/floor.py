"""What a model needs to compute, and how fast this machine multiplies matrices: no program can be faster than that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from whisperd.engine.weights.catalogue import canonical

WINDOW_SECONDS = 30
TOKENS_PER_WINDOW = 100  # of continuous speech
_CONTEXT = 1500  # features of a window


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What decides how much a Whisper computes; names as in `whisper.model.ModelDimensions`."""

    n_mels: int
    n_state: int  # the same for audio and text in all models
    n_audio_layer: int
    n_text_layer: int
    n_vocab: int


_SIZES: Final = {
    "tiny": Dimensions(80, 384, 4, 4, 51865),
    "base": Dimensions(80, 512, 6, 6, 51865),
    "small": Dimensions(80, 768, 12, 12, 51865),
    "medium": Dimensions(80, 1024, 24, 24, 51865),
    "large-v1": Dimensions(80, 1280, 32, 32, 51865),
    "large-v2": Dimensions(80, 1280, 32, 32, 51865),
    "large-v3": Dimensions(128, 1280, 32, 32, 51866),
    "large-v3-turbo": Dimensions(128, 1280, 32, 4, 51866),
}


def dimensions(model: str) -> Dimensions | None:
    """Of one of OpenAI's models; None for any other. An `.en` has one token less, which does not matter here."""
    return _SIZES.get(canonical(model).removesuffix(".en"))


def operations(size: Dimensions) -> float:
    """Of one window of 30 s, greedy: encoder, cross-attention keys and values, and 100 steps; a multiply-add is two."""
    n, width = _CONTEXT, size.n_state
    convolutions = 6 * n * (2 * size.n_mels * width + width**2)
    encoder = size.n_audio_layer * (24 * n * width**2 + 4 * n**2 * width) + convolutions
    keys = size.n_text_layer * 4 * n * width**2
    step = size.n_text_layer * (28 * width**2 + 4 * n * width) + 2 * size.n_vocab * width
    return float(encoder + keys + TOKENS_PER_WINDOW * step)


def fastest_speed(size: Dimensions, operations_per_second: float) -> float:
    """Audio seconds per second if nothing but these operations took time."""
    return WINDOW_SECONDS * operations_per_second / operations(size)


def gemm_rates(device: str, threads: int) -> dict[str, float]:
    """Operations per second of a large matrix product in each type, the best of six. Loads torch."""
    import time  # noqa: PLC0415

    import torch  # noqa: PLC0415

    torch.set_num_threads(threads)
    on_gpu = device.startswith("cuda")
    size = 8192 if on_gpu else 1536
    rates = {}
    for name, kind in {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.items():
        if name == "fp16" and not on_gpu:
            continue
        a, b = (torch.randn(size, size).to(device, kind) for _ in range(2))
        best = 0.0
        for _ in range(6):
            start = time.perf_counter()
            a @ b
            if on_gpu:
                torch.cuda.synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
        rates[name] = best
    return rates
