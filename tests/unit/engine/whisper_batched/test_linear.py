"""Linear layers whose products are computed in 8 bits."""

import pytest
import torch

from whisperd.engine.whisper_batched.linear import QuantisedAffine, can_quantise

MANY = 256  # rows, from which another library multiplies


@pytest.fixture(autouse=True)
def _eight_bits():
    """The reason why 8 bits cannot be tried here, said aloud."""
    if not can_quantise():
        pytest.skip("this torch or this CPU has no products in 8 bits")


@pytest.mark.parametrize("rows", [50, MANY])
@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0], ids=["around zero", "positive", "negative"])
def test_a_product_in_8_bits_is_near_to_the_exact_one(rows, activation, dtype, shift):
    """Wherever its inputs lie, within a hundredth of what they might add up to; outputs of any scale keep their own precision."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 64, generator=generator) * torch.logspace(-3, 3, 96)[:, None]
    bias = torch.randn(96, generator=generator)
    x = torch.randn(2, rows, 64, generator=generator) + shift

    product = QuantisedAffine(weight, bias, dtype, activation, rows)(x)

    exact = torch.nn.functional.linear(x, weight, bias)
    exact = torch.nn.functional.gelu(exact) if activation == "gelu" else exact
    far = (product.float() - exact).norm(dim=(0, 1)) / (x.norm() * weight.norm(dim=1) + bias.abs() * (2 * rows) ** 0.5)
    assert product.dtype is dtype
    assert far.max() < 0.01


@pytest.mark.parametrize("rows", [3, MANY])
def test_a_row_does_not_depend_on_the_rows_beside_it(rows):
    """A loud window in the batch must not blur a quiet one."""
    generator = torch.Generator().manual_seed(0)
    layer = QuantisedAffine(torch.randn(32, 64, generator=generator), None, torch.float32, rows=rows)
    quiet = torch.randn(rows, 64, generator=generator)
    loud = quiet.clone()
    loud[1:] *= 1000

    assert torch.equal(layer(loud)[0], layer(quiet)[0])


def test_a_sum_of_the_largest_products_does_not_overflow():
    """Without VNNI two products are added in 16 bits."""
    layer = QuantisedAffine(torch.ones(16, 64), None, torch.float32)

    product = layer(torch.ones(3, 64))

    assert product == pytest.approx(torch.full((3, 16), 64.0), rel=0.01)


@pytest.mark.parametrize("rows", [3, MANY])
def test_silence_and_weights_of_zero_give_the_bias(rows):
    """No scale is zero, which would divide by it."""
    product = QuantisedAffine(torch.zeros(16, 32), torch.arange(16.0), torch.float32, rows=rows)(torch.zeros(rows, 32))

    assert torch.equal(product, torch.arange(16.0).expand(rows, 16))


@pytest.mark.parametrize("reason", [AttributeError, RuntimeError])
def test_a_torch_without_these_products_says_so(monkeypatch, reason):
    """They have no public name, and may go: that must not end a start that does not need them."""

    def gone(*_, **__):
        raise reason

    can_quantise.cache_clear()
    monkeypatch.setattr("whisperd.engine.whisper_batched.linear.QuantisedAffine", gone)
    try:
        assert not can_quantise()
    finally:
        can_quantise.cache_clear()
