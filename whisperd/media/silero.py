"""The network of silero-vad, which says of each 32 ms of audio how likely somebody speaks in it.

The network is that of https://github.com/snakers4/silero-vad, version 6, for 16 kHz: the magnitudes of a Fourier transform,
four convolutions, an LSTM. It is computed here by torch, for hundreds of frames at once, in half the time that onnxruntime
takes for the same network; the probabilities differ by less than 0.0001.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch user reads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

State = tuple["Tensor", "Tensor"]

_FFT, _HOP, _PADDING = 256, 128, 64  # samples; the padding mirrors the end of a frame
_HIDDEN = 128
_TAPS = 3  # of each convolution


class Silero:
    """The loaded network. It keeps no state between calls, so any number of threads may share one.

    Args:
        path: of `silero_vad_16k_sequence.onnx`, of which the weights alone are used.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such network.
    """

    def __init__(self, path: Path) -> None:
        try:
            stored = weights_of(path.read_bytes())
            self._window = torch.hann_window(_FFT)
            self._convolutions = [
                # (taps, channels, new channels)
                (stored[f"encoder.{number}.weight"].permute(2, 1, 0).contiguous(), stored[f"encoder.{number}.bias"])
                for number in range(4)
            ]
            self._lstm = _lstm(*(weight[0] for name, weight in stored.items() if name.startswith("onnx::LSTM")))
            self._last, self._bias = stored["output.weight"].flatten(), stored["output.bias"]
        except (KeyError, IndexError, TypeError, RuntimeError) as error:
            raise ValueError(f"it is not the network of silero-vad 6: {error}") from error

    @staticmethod
    def start() -> State:
        """Return the state before the first frame."""
        return torch.zeros(1, 1, _HIDDEN), torch.zeros(1, 1, _HIDDEN)

    @torch.inference_mode()
    def __call__(self, frames: Tensor, state: State) -> tuple[Tensor, State]:
        """Compute the probability of speech in each frame.

        Args:
            frames: (frames, 576), float32 in [-1, 1]: 512 samples, and before them the last 64 of the frame before.
            state: after the frame before.

        Returns:
            Probabilities, (frames,), and the state after the last frame.
        """
        padded = F.pad(frames[:, None], (0, _PADDING), mode="reflect")[:, 0]
        spectrum = torch.fft.rfft(padded.unfold(1, _FFT, _HOP) * self._window).abs()  # (frames, 4, 129)
        first, second, third, fourth = self._convolutions
        x = _convolve(_convolve(_convolve(spectrum, *first), *second, step=2), *third, step=2)[:, 0]
        weight, bias = fourth
        x = torch.addmm(bias, x, weight[1]).relu_()  # one place is left; the other taps meet zeros
        x, state = self._lstm(x[:, None], state)
        return torch.sigmoid(x[:, 0].relu() @ self._last + self._bias), state


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, step: int = 1) -> Tensor:
    """Convolve (frames, places, channels) with (taps, channels, new channels) in one product, with a zero at each end, and rectify."""
    frames, places, channels = x.shape
    padded = F.pad(x, (0, 0, 1, 1))
    found = (places - 1) // step + 1
    size = padded.stride()
    columns = padded.as_strided((frames, found, _TAPS * channels), (size[0], step * size[1], 1))
    product = torch.addmm(bias, columns.reshape(frames * found, -1), weight.flatten(0, 1))
    return product.relu_().view(frames, found, -1)


def _lstm(given: Tensor, hidden: Tensor, bias: Tensor) -> torch.nn.LSTM:
    """Make a layer from the weights of an LSTM of ONNX, whose gates are in the order input, output, forget, cell."""

    def ordered(weight: Tensor) -> Tensor:
        first, second, third, fourth = weight.chunk(4)
        return torch.cat([first, third, fourth, second])  # of torch: input, forget, cell, output

    layer = torch.nn.LSTM(_HIDDEN, _HIDDEN)
    biases = bias.chunk(2)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    layer.load_state_dict(dict(zip(names, map(ordered, (given, hidden, *biases)), strict=True)))
    return layer


# Numbers of fields in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
_GRAPH, _INITIALIZER, _DIMS, _NAME, _RAW_DATA = 7, 5, 1, 8, 9


def weights_of(model: bytes) -> dict[str, Tensor]:
    """Read the weights of an ONNX model, in their order; all of them are float32.

    Raises:
        ValueError: these are not the bytes of a model.
    """
    found: dict[str, Tensor] = {}
    graphs = [value for number, value in _fields(model) if number == _GRAPH and isinstance(value, bytes)]
    tensors = [value for graph in graphs for number, value in _fields(graph) if number == _INITIALIZER]
    for tensor in tensors:
        shape, name, content = [], "", b""
        for number, value in _fields(tensor if isinstance(tensor, bytes) else b""):
            if number == _DIMS and isinstance(value, int):
                shape.append(value)
            elif number == _NAME and isinstance(value, bytes):
                name = value.decode()
            elif number == _RAW_DATA and isinstance(value, bytes):
                content = value
        found[name] = torch.frombuffer(bytearray(content), dtype=torch.float32).view(shape)
    return found


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a message (https://protobuf.dev/programming-guides/encoding/)."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:  # noqa: PLR2004 - the highest bit says that more follow
                return value

    sizes = {1: 8, 5: 4}  # of wire types with a fixed one
    while at < len(message):
        number, kind = divmod(varint(), 8)
        if not kind:
            yield number, varint()
            continue
        size = sizes[kind] if kind in sizes else varint()
        yield number, message[at : at + size]
        at += size
