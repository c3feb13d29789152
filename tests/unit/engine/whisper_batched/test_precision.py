"""In which numbers the batched decoder computes."""

import pytest
import torch

from whisperd.core.errors import BootError
from whisperd.engine.whisper_batched import precision as module
from whisperd.engine.whisper_batched.precision import Precision, QuantisedAffine, can_quantise, resolve_compute_type

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def eight_bits():
    """The reason why 8 bits cannot be tried here, said aloud."""
    if not can_quantise():
        pytest.skip("this CPU has no avx512_vnni, or this torch no products in 8 bits")


@pytest.mark.parametrize(
    ("device", "hardware", "asked", "expected"),
    [
        (CPU, True, "auto", Precision("bf16", torch.bfloat16)),
        (CPU, False, "auto", Precision("fp32", torch.float32)),
        (CPU, False, "bf16", Precision("bf16", torch.bfloat16)),
        (CPU, True, "fp32", Precision("fp32", torch.float32)),
        (CUDA, False, "auto", Precision("fp16", torch.float16)),
        (CUDA, True, "bf16", Precision("bf16", torch.bfloat16)),
        (CPU, True, "int8", Precision("int8", torch.bfloat16, quantised=True)),
        (CPU, False, "int8", Precision("int8", torch.float32, quantised=True)),
    ],
)
def test_a_compute_type_is_what_the_device_is_good_at(monkeypatch, device, hardware, asked, expected):
    """Emulated bf16 is slower than fp32, and 8 bits are never taken unasked."""
    monkeypatch.setattr(module, "_cpu_has_bf16", lambda: hardware)
    monkeypatch.setattr(module, "can_quantise", lambda: True)

    precision = resolve_compute_type(device, asked)

    assert precision == expected


@pytest.mark.parametrize(
    ("device", "able", "asked", "hint"),
    [
        (CPU, True, "fp16", "compute_type: auto"),
        (CPU, True, "int4", "use auto, int8, fp32"),
        (CPU, False, "int8", "engine: faster-whisper"),
        (CUDA, True, "int8", "engine: faster-whisper"),
    ],
)
def test_what_a_device_cannot_compute_in_is_refused(monkeypatch, device, able, asked, hint):
    """With what it can do instead."""
    monkeypatch.setattr(module, "can_quantise", lambda: able)

    with pytest.raises(BootError, match=asked) as error:
        resolve_compute_type(device, asked)

    assert hint in error.value.hint


@pytest.mark.usefixtures("eight_bits")
@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0], ids=["around zero", "positive", "negative"])
def test_a_product_in_8_bits_is_near_to_the_exact_one(activation, dtype, shift):
    """Wherever its inputs lie, within a hundredth of what they might add up to; outputs of any scale keep their own precision."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 64, generator=generator) * torch.logspace(-3, 3, 96)[:, None]
    bias = torch.randn(96, generator=generator)
    x = torch.randn(2, 50, 64, generator=generator) + shift

    product = QuantisedAffine(weight, bias, dtype, activation)(x)

    exact = torch.nn.functional.linear(x, weight, bias)
    exact = torch.nn.functional.gelu(exact) if activation == "gelu" else exact
    far = (product.float() - exact).norm(dim=(0, 1)) / (x.norm() * weight.norm(dim=1) + bias.abs() * 100**0.5)
    assert product.dtype is dtype
    assert far.max() < 0.01


@pytest.mark.usefixtures("eight_bits")
def test_silence_and_weights_of_zero_give_the_bias():
    """No scale is zero, which would divide by it."""
    product = QuantisedAffine(torch.zeros(16, 32), torch.arange(16.0), torch.float32)(torch.zeros(3, 32))

    assert torch.equal(product, torch.arange(16.0).expand(3, 16))


@pytest.mark.parametrize("reason", [AttributeError, RuntimeError])
def test_a_torch_without_these_products_says_so(monkeypatch, reason):
    """They have no public name, and may go: that must not end a start that does not need them."""

    def gone(*_):
        raise reason

    can_quantise.cache_clear()
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True, raising=False)
    monkeypatch.setattr("whisperd.engine.whisper_batched.precision.QuantisedAffine", gone)
    try:
        assert not can_quantise()
    finally:
        can_quantise.cache_clear()
