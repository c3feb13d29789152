"""Audio of a window to what the encoder takes."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from whisper.audio import HOP_LENGTH, N_FRAMES, N_SAMPLES, log_mel_spectrogram

from whisperd.engine.base import SAMPLE_RATE

if TYPE_CHECKING:
    from torch import Tensor

    from whisperd.engine.batched.windows import Window

FRAMES_PER_SECOND: int = SAMPLE_RATE // HOP_LENGTH
_STEP_FRAMES = 100  # lengths that the encoder runs over, so that short windows meet others of their length
# With 5 s the words of clips of 1 to 4 s were as right as with 30, but every third full stop was lost; with 8 they stayed.
_LEAST_FRAMES = 800
_FAINTEST = 1e-4  # of full scale, -80 dB: three steps of 16 bits


def seconds_of(window: Window) -> float:
    """Length of the window's audio."""
    if window.mel is not None:
        return window.mel.shape[-1] / FRAMES_PER_SECOND
    assert window.audio is not None
    return len(window.audio) / SAMPLE_RATE


def seed_of(window: Window) -> int:
    """A number that is always the same for the same audio."""
    if window.mel is not None:
        return zlib.crc32(window.mel.contiguous().cpu().numpy().tobytes())
    assert window.audio is not None
    return zlib.crc32(np.ascontiguousarray(window.audio).tobytes())


def is_audible(window: Window) -> bool:
    """Whether there is any sound. Out of nothing Whisper hears " you", and is too sure of it for its own thresholds."""
    if window.audio is None:
        return True
    full_scale = 32768.0 if window.audio.dtype == np.int16 else 1.0
    loudest = max(abs(float(window.audio.max())), abs(float(window.audio.min())))
    return loudest > _FAINTEST * full_scale


def mel_of(window: Window, n_mels: int, margin_seconds: float | None, device: torch.device) -> Tensor:
    """Log-mel spectrogram with silence behind the audio.

    Args:
        window: of at most 30 s.
        n_mels: 80 or 128.
        margin_seconds: of silence at least; None: fill 30 s.
        device: where to compute it.

    Returns:
        (n_mels, frames), frames of 10 ms; a `mel` that was given comes back as it is.
    """
    if window.mel is not None:
        return window.mel.to(device)
    assert window.audio is not None
    audio = torch.from_numpy(np.ascontiguousarray(window.audio)).to(device)
    audio = audio.float() / 32768.0 if audio.dtype == torch.int16 else audio.float()
    frames = N_FRAMES
    if margin_seconds is not None:
        wanted = (seconds_of(window) + margin_seconds) * FRAMES_PER_SECOND
        frames = min(max(math.ceil(wanted / _STEP_FRAMES) * _STEP_FRAMES, _LEAST_FRAMES), N_FRAMES)
    padding = min(frames * HOP_LENGTH, N_SAMPLES) - len(audio)
    mel: Tensor = log_mel_spectrogram(audio, n_mels, padding=padding)
    return mel
