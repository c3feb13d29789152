"""The engine of batched decoding: what has been tried before it is ready."""

from pathlib import Path

import pytest
import torch
from support.tiny_model import tiny_model

from whisperd.core.errors import BootError
from whisperd.core.options import EngineOptions
from whisperd.engine.weights.find import Weights
from whisperd.engine.whisper_batched import engine as module
from whisperd.engine.whisper_batched.engine import BatchedWhisper
from whisperd.engine.whisper_batched.text_decoder import TextDecoder


@pytest.fixture
def load(monkeypatch):
    """Loads a model with random weights."""
    monkeypatch.setattr(module, "find", lambda *_: Weights("base", "checkpoint", (), "", ""))
    monkeypatch.setattr(module, "load", lambda *_: tiny_model(audio_context=1500, text_context=448))
    return lambda: BatchedWhisper(EngineOptions("openai-whisper", "base", Path("models"), device="cpu", threads=2))


def test_trying_it_out_leaves_nothing_behind(load):
    """The first job finds an empty batch."""
    engine = load()

    assert (engine.pending, engine.takes_recordings) == (0, False)
    assert engine._decoder._batches == {}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("CUDA error: no kernel image is available\nfor execution"),
            "base cannot run on cpu: CUDA error: no",
        ),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
    ],
    ids=["kernels", "memory"],
)
@pytest.mark.parametrize("method", ["prefill", "step"])
def test_a_model_that_does_not_run_stops_the_start(load, monkeypatch, method, error, message):
    """Ready means tried: otherwise each job would find out again."""

    def fail(*arguments, **named):
        raise error

    monkeypatch.setattr(TextDecoder, method, fail)
    with pytest.raises(BootError, match=message) as caught:
        load()

    assert "\n" not in caught.value.message
