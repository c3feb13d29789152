"""The kernels of attention compute the same."""

import pytest
import torch

from whisperd.engine.whisper_batched.attention import ENCODER_ATTENTION, STEP_ATTENTION

WINDOWS, HEADS, FRAMES, SIZE = 3, 2, 40, 16
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def exact(query, key, value, mask):
    """The definition, in float64."""
    scores = query.double() @ key.double().transpose(-1, -2)
    return torch.softmax(scores if mask is None else scores + mask.double(), -1) @ value.double()


@pytest.mark.parametrize("places", [1, 5, FRAMES])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", sorted({**ENCODER_ATTENTION, **STEP_ATTENTION}))
def test_every_kernel_is_the_definition(name, dtype, masked, places):
    """Within the rounding of its format, with and without frames that nothing may attend to."""
    kernel = {**ENCODER_ATTENTION, **STEP_ATTENTION}[name]
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(WINDOWS, HEADS, places, SIZE, generator=generator).to(dtype) * SIZE**-0.5
    key, value = torch.randn(2, WINDOWS, HEADS, FRAMES, SIZE, generator=generator).to(dtype)
    mask = None
    if masked:
        mask = torch.zeros(WINDOWS, 1, 1, FRAMES, dtype=dtype)
        mask[1, ..., 7:] = -torch.inf

    attended = kernel(query, key, value, mask)

    assert attended.shape == query.shape
    assert torch.allclose(attended.double(), exact(query, key, value, mask), atol=TOLERANCE[dtype])
