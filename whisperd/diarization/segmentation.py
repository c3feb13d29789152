"""The network that says which of up to three people speak at each moment of ten seconds.

PyanNet: learned sinc filters (arXiv:1808.00158), convolutions and recurrent layers (arXiv:2104.04045), with one class for
each set of at most two of three people (the powerset, arXiv:2310.13025). The names of its layers are those of the weights
segmentation-3.0.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

WINDOW_SAMPLES = 160_000  # 10 s at 16 kHz, the length that the network was trained on
FRAMES = 589  # in a window
FRAME_STEP_SAMPLES = 270
FIRST_FRAME_SAMPLES = 495  # from the start of the window to the middle of the first frame: half the receptive field
PEOPLE = 3
SETS = ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2))  # of people who speak, in the order of the classes
_RATE = 16_000
_TAPS, _SINC_STEP = 251, 10
_LEAST_HZ = 50.0


class Segmentation(nn.Module):
    """The network; `forward` takes samples of shape (windows, 160 000) in [-1, 1] and returns probabilities of sets.

    The shape of the result is (windows, 589, 7); the classes are those of `SETS`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sincnet = _SincNet()
        self.lstm = nn.LSTM(60, 128, num_layers=4, bidirectional=True, batch_first=True)
        self.linear = nn.ModuleList([nn.Linear(256, 128), nn.Linear(128, 128)])
        self.classifier = nn.Linear(128, len(SETS))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """See the class."""
        hidden, _ = self.lstm(self.sincnet(samples[:, None]).transpose(1, 2))
        for linear in self.linear:
            hidden = functional.leaky_relu(linear(hidden))
        probabilities: torch.Tensor = torch.softmax(self.classifier(hidden), dim=-1)
        return probabilities


class _SincNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wav_norm1d = nn.InstanceNorm1d(1, affine=True)
        self.conv1d = nn.ModuleList([_Sinc(), nn.Conv1d(80, 60, 5), nn.Conv1d(60, 60, 5)])
        self.norm1d = nn.ModuleList([nn.InstanceNorm1d(channels, affine=True) for channels in (80, 60, 60)])

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.wav_norm1d(samples)
        for index, (convolve, normalize) in enumerate(zip(self.conv1d, self.norm1d, strict=True)):
            hidden = convolve(hidden)
            if index == 0:
                hidden = hidden.abs_()  # a copy would take a tenth of the time of the whole network
            hidden = functional.leaky_relu(normalize(functional.max_pool1d(hidden, 3)))
        return hidden


class _Sinc(nn.Module):
    """40 even and 40 odd band-pass filters, each given by its lower edge and its width in hertz."""

    def __init__(self) -> None:
        super().__init__()
        self.filterbank = _Bands()

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        return functional.conv1d(samples, self.filterbank(), stride=_SINC_STEP)


class _Bands(nn.Module):
    n_: torch.Tensor
    window_: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        half = _TAPS // 2
        self.low_hz_ = nn.Parameter(torch.zeros(40, 1))
        self.band_hz_ = nn.Parameter(torch.zeros(40, 1))
        self.register_buffer("window_", torch.zeros(half))
        self.register_buffer("n_", torch.zeros(1, half))

    def forward(self) -> torch.Tensor:
        low = _LEAST_HZ + self.low_hz_.abs()
        high = torch.clamp(low + _LEAST_HZ + self.band_hz_.abs(), _LEAST_HZ, _RATE / 2)
        width = high - low
        even = (torch.sin(high @ self.n_) - torch.sin(low @ self.n_)) / (self.n_ / 2) * self.window_
        odd = (torch.cos(low @ self.n_) - torch.cos(high @ self.n_)) / (self.n_ / 2) * self.window_
        evens = torch.cat([even, 2 * width, even.flip(1)], dim=1)
        odds = torch.cat([odd, torch.zeros_like(width), -odd.flip(1)], dim=1)
        return (torch.cat([evens, odds]) / (2 * width).repeat(2, 1))[:, None]
