"""Which number formats and kernels are chosen."""

import pytest
import torch
from support.precision import TIMINGS
from support.tiny_model import tiny_model

from whisperd.core.errors import BootError
from whisperd.engine.whisper_batched.precision import Precision, choose, weight_bytes

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FP32, BF16 = torch.float32, torch.bfloat16


def test_auto_takes_the_fastest_of_each():
    """Products, the encoder's attention and a step's attention are chosen each by its own times."""
    chosen = choose(CPU, "auto", TIMINGS)

    assert chosen == Precision("int8", FP32, True, FP32, "fused", "written out")


@pytest.mark.parametrize(
    ("faster", "name", "dtype"),
    [
        ({"product bf16": 0.1, "encoder bf16 head by head": 0.1}, "bf16", BF16),
        ({"product fp32": 0.1}, "fp32", FP32),
        ({"encoder bf16 head by head": 0.1}, "int8", BF16),
    ],
)
def test_a_format_that_is_slower_here_is_never_chosen_by_auto(faster, name, dtype):
    """A processor may multiply in bf16, and still be faster in fp32."""
    chosen = choose(CPU, "auto", TIMINGS | faster)

    assert (chosen.name, chosen.dtype) == (name, dtype)


@pytest.mark.parametrize(("seconds", "expected"), [(1.95, FP32), (1.5, BF16)])
def test_fewer_digits_must_be_worth_it(seconds, expected):
    """Of two that are as fast as each other, the exact one."""
    chosen = choose(CPU, "auto", TIMINGS | {"encoder bf16 fused": seconds})

    assert chosen.dtype is expected


@pytest.mark.parametrize(("seconds", "expected"), [(1.05, BF16), (1.2, FP32)])
def test_keys_and_values_are_kept_in_half_the_size_if_that_is_not_slower(seconds, expected):
    """They are most of the memory of a batch; a tenth of a step is worth half of it."""
    chosen = choose(CPU, "auto", TIMINGS | {"step bf16 fused": seconds})

    assert chosen.cache_dtype is expected


@pytest.mark.parametrize(("name", "dtype"), [("fp32", FP32), ("bf16", BF16)])
def test_a_format_that_was_asked_for_is_used_throughout(name, dtype):
    """Whatever is faster."""
    chosen = choose(CPU, name, TIMINGS)

    assert (chosen.name, chosen.dtype, chosen.cache_dtype, chosen.quantised) == (name, dtype, dtype, False)


def test_int8_leaves_the_format_of_the_attention_to_the_timings():
    """Only products are computed in 8 bits."""
    chosen = choose(CPU, "int8", TIMINGS | {"product int8": 9.0, "encoder bf16 fused": 0.1})

    assert (chosen.name, chosen.quantised, chosen.dtype) == ("int8", True, BF16)


@pytest.mark.parametrize(("asked", "expected"), [("auto", "fp16"), ("bf16", "bf16"), ("fp32", "fp32")])
def test_a_gpu_needs_no_timings(asked, expected):
    """It takes fp16 unless told otherwise."""
    assert choose(CUDA, asked, {}).name == expected


@pytest.mark.parametrize(
    ("device", "timings", "asked", "hint"),
    [
        (CPU, TIMINGS, "fp16", "compute_type: auto"),
        (CPU, TIMINGS, "int4", "use auto, int8, fp32"),
        (CPU, {"product fp32": 1.0}, "int8", "compute_type: auto"),
        (CUDA, {}, "int8", "compute_type: auto"),
    ],
)
def test_a_type_that_a_device_cannot_compute_in_is_refused(device, timings, asked, hint):
    """The error says what to set instead."""
    with pytest.raises(BootError, match=asked) as error:
        choose(device, asked, timings)

    assert hint in error.value.hint


@pytest.mark.parametrize(("compute_type", "each"), [("int8", 1), ("bf16", 2), ("fp32", 4)])
def test_the_memory_of_the_weights_is_known_before_they_are_converted(compute_type, each):
    """The embedding stays in fp16 beside the projection onto the vocabulary."""
    model = tiny_model(audio_context=20, text_context=10)
    weights = sum(weight.numel() for weight in model.parameters())

    needed = weight_bytes(model, choose(CPU, compute_type, TIMINGS))

    assert needed == each * weights + 2 * model.decoder.token_embedding.weight.numel()
