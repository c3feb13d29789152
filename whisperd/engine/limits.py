"""Finds the device to use, and refuses options that a model does not support."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE

from whisperd.core.errors import BootError, InputError

if TYPE_CHECKING:
    from whisperd.core.options import TranscribeOptions


def limit_threads(threads: int) -> None:
    """Limit the threads of torch in this process, since several workers share the machine."""
    torch.set_num_threads(threads)
    with suppress(RuntimeError):  # allowed once per process, and only before the first parallel work
        torch.set_num_interop_threads(1)


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
        hint = "use cpu or auto, or check the NVIDIA driver and that torch is a CUDA build"
        raise BootError(f"device {asked!r} is not there: torch sees {count} CUDA devices", hint=hint)
    return torch.device("cuda", index)


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
    if options.language is None:
        return
    code = language_code(options.language)
    if code not in LANGUAGES:
        raise _unsupported(f"language {options.language!r} is not known", "use a code such as en, de or fr")
    if code not in (tuple(LANGUAGES)[:languages] if multilingual else ("en",)):
        hint = "use large-v3" if multilingual else "use a model without .en"
        raise _unsupported(f"model {model} does not know the language {options.language!r}", hint)


def language_code(language: str) -> str:
    """Return the code of a language that is given by code or name: `French` and `fr` become `fr`."""
    code: str = TO_LANGUAGE_CODE.get(language.lower(), language.lower())
    return code


def _unsupported(message: str, hint: str) -> InputError:
    return InputError(message, hint=hint, code="unsupported", stage="transcribing")
