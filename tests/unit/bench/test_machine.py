"""Operations of a model, and the estimate of one that is not installed."""

import pytest
import torch
from support.precision import precision
from whisper.model import ModelDimensions

from whisperd.bench.machine import ModelSpeed, dimensions, estimate, operations
from whisperd.bench.programs import TOKENS_PER_WINDOW, Dimensions, LayerSeconds, layer_seconds, window_seconds
from whisperd.engine.weights.find import OFFICIAL


@pytest.mark.parametrize("model", OFFICIAL)
def test_every_official_model_has_dimensions(model):
    """So that each can be estimated; more layers and width are more work."""
    size = dimensions(model)

    assert operations(size) >= operations(dimensions("tiny"))


def test_operations_are_counted_as_torch_counts_them():
    """Within a few percent: what is left out is not a matrix product."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415
    from whisper import Whisper  # noqa: PLC0415

    size = dimensions("tiny")
    model = Whisper(ModelDimensions(80, 1500, 384, 6, 4, 51865, 448, 384, 6, 4))
    encoder, decoder = model.encoder.to("meta"), model.decoder.to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tokens = torch.zeros(1, TOKENS_PER_WINDOW, dtype=torch.long, device="meta")
        decoder(tokens, encoder(torch.zeros(1, 80, 3000, device="meta")))

    assert operations(size) == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_an_unknown_model_has_no_floor():
    """Nothing is made up for a checkpoint of the user's own."""
    assert dimensions("/models/mine.pt") is None


def test_a_model_is_estimated_from_the_nearest_that_was_measured():
    """By the seconds that layers of both sizes take."""
    measured = [ModelSpeed("tiny.en", 90.0, True, 1, None), ModelSpeed("base", 40.0, True, 1, None)]
    seconds = {"tiny": 0.2, "base": 0.5, "small": 2.0}

    small = estimate("small.en", measured, seconds, rate=1e12)

    assert small.speed == pytest.approx(10.0)
    assert not small.measured
    assert estimate("small", [ModelSpeed("mine.pt", 9.0, True, 1, None)], seconds, rate=1e12) is None


def test_a_window_takes_what_its_layers_take():
    """Turbo has the encoder of large-v3 and few layers in its decoder; both count."""
    size = Dimensions(n_mels=80, n_state=64, n_audio_layer=3, n_text_layer=5, n_vocab=51865)
    took = LayerSeconds(encoder=(10.0, 14.0), step=(0.2, 0.5), keys=6.0, words=0.1)

    step = 0.2 + 4 * 0.3 + 0.1
    assert window_seconds(size, took, 4) == pytest.approx(10 + 2 * 4 + 5 * 3 + TOKENS_PER_WINDOW * step / 4)


def test_the_layers_of_any_size_can_be_measured():
    """With random weights: nothing is downloaded."""
    size = Dimensions(n_mels=80, n_state=64, n_audio_layer=2, n_text_layer=2, n_vocab=51865)

    took = layer_seconds(size, torch.device("cpu"), precision("fp32"), 2)

    assert min(*took.encoder, *took.step, took.keys, took.words) > 0
