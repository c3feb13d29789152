"""Examines whether the weights of all models are on this machine.

The daemon uses it too when it starts, so that this module must not import anything large.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from whisperd.cli.doctor import Finding
from whisperd.core.errors import BootError
from whisperd.engine.weights.catalogue import OFFICIAL, canonical
from whisperd.engine.weights.find import find, find_ct2
from whisperd.settings import profiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.settings.config import Config


def examine_models(settings: Config) -> Iterator[Finding]:
    """Look for the weights of every model that a job may ask for."""
    for model in profiles.models(settings):
        yield _model(settings.model_copy(update={"model": model}))


def _model(settings: Config) -> Finding:
    if settings.engine == "faster-whisper":
        return _ct2_model(settings)
    try:
        weights = find(settings.model, settings.models_directory)
    except BootError as error:
        fetchable = canonical(settings.model) in OFFICIAL
        return Finding("error", error.message + (" (it can be fetched)" if fetchable else ""), error.hint)
    return Finding("ok", f"model {settings.model}: {weights.source}")


def _ct2_model(settings: Config) -> Finding:
    if importlib.util.find_spec("faster_whisper") is None:
        return Finding(
            "error", "the engine faster-whisper is not installed", "run `pip install 'whisperd[faster-whisper]'`"
        )
    try:
        weights = find_ct2(settings.model, settings.models_directory)
    except BootError as error:
        return Finding("error", error.message, error.hint)
    return Finding("ok", f"model {settings.model}: {weights.source}")
