"""What a model of openai-whisper was trained for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE

from whisperd.errors import InputError

if TYPE_CHECKING:
    from whisper.model import ModelDimensions

    from whisperd.options import TranscribeOptions


def check(options: TranscribeOptions, model: str, dims: ModelDimensions, *, multilingual: bool, languages: int) -> None:
    """Refuse a language or task that the model does not know.

    Raises:
        InputError: `unsupported`.
    """
    # Models whose decoder was cut (turbo, distil) learned to transcribe only: told to translate, they transcribe.
    if options.task == "translate" and (not multilingual or dims.n_text_layer < dims.n_audio_layer):
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
    """`French` and `fr` to `fr`."""
    code: str = TO_LANGUAGE_CODE.get(language.lower(), language.lower())
    return code


def _unsupported(message: str, hint: str) -> InputError:
    return InputError(message, hint=hint, code="unsupported", stage="transcribing")
