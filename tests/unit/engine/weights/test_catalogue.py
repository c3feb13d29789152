"""The table of models against openai-whisper's own."""

import whisper

from whisperd.engine.weights import catalogue


def test_every_model_of_openai_whisper_has_the_same_address():
    """Names, aliases, addresses and hashes are those of openai-whisper, so that its new models are not missed."""
    ours = {name: catalogue.checkpoint_url(name) for name in catalogue.OFFICIAL}
    ours |= {alias: catalogue.checkpoint_url(name) for alias, name in catalogue.ALIASES.items()}

    assert ours == whisper._MODELS


def test_every_model_has_alignment_heads():
    """The heads are taken from openai-whisper by the name under which a model is stored."""
    assert set(catalogue.OFFICIAL) <= set(whisper._ALIGNMENT_HEADS)
