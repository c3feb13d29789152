"""Log mel filterbanks as Kaldi's `compute-fbank-feats` makes them, which the speaker network was trained on.

The steps and their defaults are those of Kaldi's `feature-fbank.cc`: frames of 25 ms every 10 ms, the mean removed,
pre-emphasis of 0.97, the Povey window, a Fourier transform of 512 points, triangular filters on the mel scale, no dither.
"""

from __future__ import annotations

import torch

FRAME_SAMPLES, STEP_SAMPLES = 400, 160  # 25 and 10 ms at 16 kHz
MELS = 80
_FFT = 512
_LOW_HZ, _HIGH_HZ = 20.0, 8000.0
_EMPHASIS = 0.97
_RATE = 16_000


class Fbank:
    """Computes filterbanks of one signal after the other."""

    def __init__(self) -> None:
        self._window = torch.hann_window(FRAME_SAMPLES, periodic=False).pow(0.85)
        self._filters = _filters()

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        """Compute the filterbanks of a signal.

        Args:
            samples: shape (samples,), float32 on the scale of 16-bit integers, 16 kHz, at least one frame.

        Returns:
            Shape (frames, 80), with `1 + (samples - 400) // 160` frames.
        """
        frames = samples.unfold(0, FRAME_SAMPLES, STEP_SAMPLES)
        frames = frames - frames.mean(dim=1, keepdim=True)
        before = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
        frames = (frames - _EMPHASIS * before) * self._window
        power = torch.fft.rfft(frames, n=_FFT).abs().square()[:, : _FFT // 2]
        return torch.clamp(power @ self._filters, min=torch.finfo(torch.float32).eps).log()


def _filters() -> torch.Tensor:
    """The triangles, shape (256, 80), evenly spaced on Kaldi's mel scale."""

    def mel(hertz: torch.Tensor) -> torch.Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    edges = mel(torch.tensor([_LOW_HZ, _HIGH_HZ], dtype=torch.float64))
    step = (edges[1] - edges[0]) / (MELS + 1)
    left = edges[0] + torch.arange(MELS) * step
    bins = mel(torch.arange(_FFT // 2, dtype=torch.float64) * _RATE / _FFT)[:, None]
    rising, falling = (bins - left) / step, (left + 2 * step - bins) / step
    return torch.clamp(torch.minimum(rising, falling), min=0.0).float()
