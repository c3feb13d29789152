"""What a model of openai-whisper was trained for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE

from whisperd.errors import InputError

if TYPE_CHECKING:
    from whisperd.options import TranscribeOptions


def check(options: TranscribeOptions, model: str, *, multilingual: bool, languages: int, whole_decoder: bool) -> None:
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
    """`French` and `fr` to `fr`."""
    code: str = TO_LANGUAGE_CODE.get(language.lower(), language.lower())
    return code


def _unsupported(message: str, hint: str) -> InputError:
    return InputError(message, hint=hint, code="unsupported", stage="transcribing")
