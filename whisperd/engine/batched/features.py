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
_LEAST_FRAMES = 500


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
