"""Loads a CTranslate2 model onto its device and tries it once. It never downloads anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel

from whisperd.core.errors import BootError
from whisperd.engine.api import EngineInfo
from whisperd.engine.limits import is_out_of_memory
from whisperd.engine.weights.find import find_ct2, read_package

if TYPE_CHECKING:
    from collections.abc import Collection

    from whisperd.core.options import EngineOptions


# CTranslate2's names for a compute type, the better one first; 8 bits need a type for what is not a weight.
NAMES = {"fp32": ("float32",), "bf16": ("bfloat16",), "fp16": ("float16",), "int8": ("int8_float16", "int8_float32")}
FASTEST = {"cpu": ("int8", "fp32"), "cuda": ("fp16", "fp32")}


def load(options: EngineOptions) -> tuple[WhisperModel, EngineInfo]:
    """Load the model and encode a second of silence: a model that fails on first use fails before it gets a job.

    Raises:
        BootError: weights, device or compute type cannot be used.
    """
    device, index = find_device(options.device, ctranslate2.get_cuda_device_count())
    weights = find_ct2(options.model, options.models_directory)
    supported = ctranslate2.get_supported_compute_types(device, device_index=index)
    try:
        model = WhisperModel(
            str(weights.directory or weights.model),
            device=device,
            device_index=index,
            compute_type=compute_type(options.compute_type, device, supported),
            cpu_threads=options.threads,
            local_files_only=True,
            files=None if weights.directory else read_package(weights),
        )
        silence = np.zeros((1, model.model.n_mels, 3000), np.float32)
        model.model.encode(ctranslate2.StorageView.from_array(silence), to_cpu=True)
    except BootError:
        raise
    except Exception as error:  # whatever bytes and whatever JSON stand there
        hint = "use a smaller model or a device with more memory" if is_out_of_memory(error) else "is it whole?"
        reason = " ".join(str(error).split())
        raise BootError(f"cannot load {weights.source} on {options.device}: {reason}", hint=hint) from error
    kind = next(kind for kind, names in NAMES.items() if model.model.compute_type in names)
    place = f"cuda:{index}" if device == "cuda" else device
    return model, EngineInfo("faster-whisper", weights.model, place, kind)


def find_device(asked: str, gpus: int) -> tuple[str, int]:
    """The device that `auto`, `cpu`, `cuda` or `cuda:N` stands for, and its number.

    Raises:
        BootError: CTranslate2 sees fewer GPUs than that.
    """
    if asked == "auto":
        asked = "cuda" if gpus else "cpu"
    device, _, number = asked.partition(":")
    index = int(number or 0)
    if device == "cuda" and index >= gpus:
        hint = "use cpu or auto, or check the NVIDIA driver and its libraries"
        raise BootError(f"device {asked!r} is not there: CTranslate2 sees {gpus} CUDA devices", hint=hint)
    return device, index


def compute_type(asked: str, device: str, supported: Collection[str]) -> str:
    """CTranslate2's name for `asked`, or for the fastest type that the device computes in hardware if that is `auto`.

    Args:
        asked: "auto", "fp32", "bf16", "fp16" or "int8".
        device: "cpu" or "cuda".
        supported: what `ctranslate2.get_supported_compute_types` says of the device.

    Raises:
        BootError: the device cannot compute in that type.
    """
    for kind in FASTEST[device] if asked == "auto" else (asked,):
        for name in NAMES[kind]:
            if name in supported:
                return name
    possible = [kind for kind, names in NAMES.items() if set(names) & set(supported)]
    raise BootError(f"{device} cannot compute in {asked}", hint=f"set compute_type to {', '.join(possible)} or auto")
