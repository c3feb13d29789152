"""The engine of batched decoding: what has been tried before it is ready."""

import pytest
import torch
from support.tiny_model import tiny_model

from whisperd.core.errors import BootError
from whisperd.core.options import EngineOptions
from whisperd.engine import limits
from whisperd.engine.weights.find import Weights
from whisperd.engine.whisper_batched import engine as module
from whisperd.engine.whisper_batched.engine import BatchedWhisper
from whisperd.engine.whisper_batched.text_decoder import TextDecoder


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Loads a model with random weights."""
    monkeypatch.setattr(module, "find", lambda *_, **__: Weights("base", "checkpoint", (), "", ""))
    monkeypatch.setattr(module, "load", lambda *_, **__: tiny_model(audio_context=1500, text_context=448))
    return lambda: BatchedWhisper(
        EngineOptions("openai-whisper", "base", tmp_path, device="cpu", threads=2, compute_type="fp32")
    )


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


def test_weights_that_do_not_fit_stop_the_start(load, monkeypatch):
    """Rather than the kernel, in the middle of the first job; where memory is unknown, nothing is refused."""
    monkeypatch.setattr(limits, "free_memory_bytes", lambda: 1000)
    with pytest.raises(BootError, match=r"base needs .* of memory for its weights, and 1.0 kB are free") as refused:
        load()
    assert "compute_type: int8" in refused.value.hint

    monkeypatch.setattr(limits, "free_memory_bytes", lambda: None)
    assert load().pending == 0
