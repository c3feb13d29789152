"""Finds the device to use, and refuses options that a model does not support."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE

from whisperd.core.display import readable_size
from whisperd.core.errors import BootError, InputError
from whisperd.core.process import free_memory_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whisperd.core.options import TranscribeOptions

LEAST_CHANCE = 0.01  # of a language, to be worth a place in the resume log


def find_device(asked: str) -> torch.device:
    """Find the device for `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU, otherwise the CPU.

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
        hint = "use device: cpu or auto, or check the NVIDIA driver and that torch is a CUDA build"
        raise BootError(f"device {asked!r} is not there: torch sees {count} CUDA devices", hint=hint)
    return torch.device("cuda", index)


def require_memory(needed_bytes: int, model: str, device: torch.device) -> None:
    """Refuse a model whose weights alone are larger than the memory that is left: the kernel would kill the worker.

    Raises:
        BootError: what is needed and what is there.
    """
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else free_memory_bytes()
    if free is None or needed_bytes <= free:
        return
    where = f"on {device}" if on_gpu else "of memory"
    remedy = "use a smaller model" if on_gpu else "use a smaller model, compute_type: int8, or raise MemoryMax="
    raise BootError(
        f"model {model} needs {readable_size(needed_bytes)} {where} for its weights, and {readable_size(free)} are free",
        hint=remedy,
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device or the machine ran out of memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    phrases = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in phrases)


def check_capabilities(
    options: TranscribeOptions, model: str, *, multilingual: bool, languages: int, whole_decoder: bool
) -> None:
    """Refuse a language or task that the model does not know.

    Args:
        options: of the job.
        model: its name, for the message.
        multilingual: whether it knows more than English.
        languages: how many of openai-whisper's list it knows.
        whole_decoder: whether its decoder is as deep as its encoder.

    Raises:
        InputError: `unsupported`.
    """
    # Models whose decoder was cut (turbo, distil) learned to transcribe only: told to translate, they transcribe.
    if options.task == "translate" and not (multilingual and whole_decoder):
        raise _unsupported(f"model {model} cannot translate", "use base, small, medium or large-v3")
    for language in options.languages if options.language is None else (options.language,):
        code = language_code(language)
        if code not in LANGUAGES:
            raise _unsupported(f"language {language!r} is not known", "use a code such as en, de or fr")
        if code not in (tuple(LANGUAGES)[:languages] if multilingual else ("en",)):
            hint = "use large-v3" if multilingual else "use a model without .en"
            raise _unsupported(f"model {model} does not know the language {language!r}", hint)


def language_code(language: str) -> str:
    """Return the code of a language that is given by code or name: `French` and `fr` become `fr`."""
    code: str = TO_LANGUAGE_CODE.get(language.lower(), language.lower())
    return code


def among(chances: dict[str, float], languages: Sequence[str]) -> dict[str, float]:
    """Limit the probabilities of languages to those that may be detected, and make their sum 1 again.

    Args:
        chances: by code.
        languages: codes or names, as in `TranscribeOptions`; none: all may be.
    """
    if not languages:
        return chances
    kept = {code: chances.get(code, 0.0) for code in dict.fromkeys(map(language_code, languages))}
    whole = sum(kept.values())
    return {code: chance / whole if whole else 1 / len(kept) for code, chance in kept.items()}


def heard(chances: dict[str, float]) -> dict[str, float]:
    """Keep the languages that matter, rounded, as `DecodedWindow.heard` has them."""
    return {code: round(chance, 3) for code, chance in chances.items() if chance >= LEAST_CHANCE}


def _unsupported(message: str, hint: str) -> InputError:
    return InputError(message, hint=hint, code="unsupported", stage="transcribing")
