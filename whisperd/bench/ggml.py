"""Writes the weights of a Whisper model for whisper.cpp, in 8 bits, so that it can be measured with the weights that are here.

The file is that of whisper.cpp's `convert-pt-to-ggml.py`, its large matrices in the format Q8_0 of ggml: blocks of 32 numbers
of 8 bits with one fp16 scale.
"""

from __future__ import annotations

import base64
import struct
from importlib import resources
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

_MAGIC = 0x67676D6C
_FP32, _FP16, _Q8 = 0, 1, 8  # types of tensors
_MOSTLY_Q8 = 2007  # type of a file: version 2 of the quantised formats, Q8_0
_BLOCK = 32


def write(model: Any, file: IO[bytes]) -> None:
    """Write a `whisper.model.Whisper` to a file."""
    dims = model.dims
    header = (
        dims.n_vocab, dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_head, dims.n_audio_layer,
        dims.n_text_ctx, dims.n_text_state, dims.n_text_head, dims.n_text_layer, dims.n_mels,
    )  # fmt: skip
    file.write(struct.pack("12i", _MAGIC, *header, _MOSTLY_Q8))
    assets = resources.files("whisper") / "assets"
    with resources.as_file(assets / "mel_filters.npz") as filters, np.load(filters) as stored:
        mel = stored[f"mel_{dims.n_mels}"].astype(np.float32)
    file.write(struct.pack("2i", *mel.shape))
    file.write(mel.tobytes())
    vocabulary = assets / ("multilingual.tiktoken" if model.is_multilingual else "gpt2.tiktoken")
    tokens = [base64.b64decode(line.split()[0]) for line in vocabulary.read_bytes().splitlines() if line]
    file.write(struct.pack("i", len(tokens)))
    for token in tokens:
        file.write(struct.pack("i", len(token)) + token)
    for name, tensor in model.state_dict().items():
        _write_tensor(file, name, tensor.detach().cpu().float().squeeze().numpy())


def _write_tensor(file: IO[bytes], name: str, values: npt.NDArray[np.float32]) -> None:
    if name in {"encoder.conv1.bias", "encoder.conv2.bias"}:
        values = values[:, None]
    is_matrix = values.ndim == 2 and name.endswith(".weight")  # noqa: PLR2004
    kind = _Q8 if is_matrix else _FP16 if name.endswith(("conv1.weight", "conv2.weight")) else _FP32
    encoded = name.encode()
    file.write(struct.pack("3i", values.ndim, len(encoded), kind))
    file.write(struct.pack(f"{values.ndim}i", *reversed(values.shape)))
    file.write(encoded)
    file.write(
        quantised(values) if kind == _Q8 else values.astype(np.float16 if kind == _FP16 else np.float32).tobytes()
    )


def quantised(values: npt.NDArray[np.float32]) -> bytes:
    """Return numbers in Q8_0; their count is a multiple of 32."""
    blocks = values.reshape(-1, _BLOCK)
    scales = np.abs(blocks).max(axis=1, keepdims=True) / 127
    result = np.zeros(len(blocks), dtype=[("scale", "<f2"), ("numbers", "i1", _BLOCK)])
    result["scale"] = scales[:, 0]
    result["numbers"] = np.rint(blocks / np.where(scales, scales, 1.0))
    return result.tobytes()
