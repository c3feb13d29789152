"""Weights for whisper.cpp."""

import io
import struct

import numpy as np
from whisper.model import ModelDimensions, Whisper

from whisperd.bench import ggml


def test_numbers_of_eight_bits_are_near_to_what_they_were():
    """Within half a step of their block of 32; a block of zeros stays one."""
    values = np.random.default_rng(3).normal(size=(4, 64)).astype(np.float32)
    values[1, :32] = 0

    stored = np.frombuffer(ggml.quantised(values), dtype=[("scale", "<f2"), ("numbers", "i1", 32)])

    restored = (stored["scale"].astype(np.float32)[:, None] * stored["numbers"]).reshape(4, 64)
    assert np.abs(restored - values).max() < 0.6 * np.abs(values).max() / 127 + 1e-3
    assert not restored[1, :32].any()


def test_a_file_holds_header_filters_vocabulary_and_every_tensor():
    """In the order in which whisper.cpp reads them, to the last byte."""
    model = Whisper(ModelDimensions(80, 1500, 64, 2, 1, 51864, 448, 64, 2, 1))
    file = io.BytesIO()
    ggml.write(model, file)
    size = file.tell()
    file.seek(0)

    def integers(count):
        return struct.unpack(f"{count}i", file.read(4 * count))

    header = integers(12)
    assert (header[1], header[-1]) == (51864, 2007)
    rows, columns = integers(2)
    file.seek(4 * rows * columns, io.SEEK_CUR)
    (tokens,) = integers(1)
    lengths = []
    for _ in range(tokens):
        lengths += integers(1)
        file.seek(lengths[-1], io.SEEK_CUR)
    found = {}
    while file.tell() < size:
        dimensions, length, kind = integers(3)
        shape = tuple(reversed(integers(dimensions)))
        name = file.read(length).decode()
        each = {0: 4, 1: 2, 8: 34 / 32}[kind]
        file.seek(round(each * np.prod(shape)), io.SEEK_CUR)
        found[name] = (shape, kind)

    assert tokens == 50256
    assert max(lengths) > 10
    assert found["decoder.token_embedding.weight"] == ((51864, 64), 8)
    assert found["encoder.conv1.bias"] == ((64, 1), 0)
    assert found["encoder.conv2.weight"] == ((64, 64, 3), 1)
    assert set(found) == set(model.state_dict())
