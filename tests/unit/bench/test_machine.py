"""Operations of a model, and the estimate of one that is not installed."""

import pytest
import torch
from whisper.model import ModelDimensions

from whisperd.bench.machine import TOKENS_PER_WINDOW, ModelSpeed, dimensions, estimate, operations
from whisperd.engine.weights.catalogue import OFFICIAL


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
    """By the operations of both."""
    measured = [ModelSpeed("tiny.en", 90.0, True, 1, None), ModelSpeed("base", 40.0, True, 1, None)]

    small = estimate("small", measured, rate=1e12)

    ratio = operations(dimensions("base")) / operations(dimensions("small"))
    assert small.speed == pytest.approx(40.0 * ratio)
    assert not small.measured
    assert estimate("small", [ModelSpeed("mine.pt", 9.0, True, 1, None)], rate=1e12) is None
