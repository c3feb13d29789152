"""The log-mel spectrogram of openai-whisper, computed window by window.

`whisper.log_mel_spectrogram` holds the samples, the Fourier transform and the result of the whole recording at once:
1.6 GB for an hour. Its only tie between distant moments is one number, the loudest value of the file: what lies more
than 80 dB below is clamped. So one pass finds that number, and each window is computed when asked for.
"""

from __future__ import annotations

import math
import mmap
from typing import TYPE_CHECKING

import numpy as np
import torch
from whisper.audio import HOP_LENGTH, N_FFT, N_FRAMES, N_SAMPLES, mel_filters

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

_REACH = N_FFT // 2  # samples that a frame sees on either side of its centre
_FLOOR = 1e-10  # energy below which whisper's spectrogram ends; what the padding of zeros gives


class LogMel:
    """A spectrogram that computes its frames when `whisper.transcribe` reads them, to save memory.

    Equal to `whisper.log_mel_spectrogram(samples, n_mels, padding=N_SAMPLES)` up to float rounding, with memory that
    does not depend on the length of the audio.

    Args:
        audio: shape (samples,), 16 kHz mono, signed 16 bit, at least 201 samples; may be a memory map.
        n_mels: 80 or 128.
        watch: called with the first frame of every slice asked for, and with 0 at each 30 s of the first pass.

    Raises:
        ValueError: the audio is shorter than one frame.
    """

    def __init__(self, audio: npt.NDArray[np.int16], n_mels: int, watch: Callable[[int], None]) -> None:
        if len(audio) <= _REACH:
            raise ValueError(f"{len(audio)} samples are less than one frame of {_REACH + 1}")
        self._audio = audio
        self._filters = mel_filters(torch.device("cpu"), n_mels)
        self._window = torch.hann_window(N_FFT)
        self.shape = (n_mels, (len(audio) + N_SAMPLES) // HOP_LENGTH)
        self._watch = watch
        self._loudest = self._find_loudest()

    def __getitem__(self, key: tuple[slice, slice]) -> torch.Tensor:
        """Compute frames of 10 ms: `mel[:, begin:end]`, float32 of shape (n_mels, end - begin)."""
        mels, frames = key
        begin, end, step = frames.indices(self.shape[1])
        if mels != slice(None) or step != 1 or begin >= end:
            raise IndexError(f"only mel[:, begin:end] with begin < end is computed, not mel[{mels}, {frames}]")
        self._watch(begin)
        return (torch.maximum(self._log_energy(begin, end), self._loudest - 8.0) + 4.0) / 4.0

    def _find_loudest(self) -> torch.Tensor:
        loudest = torch.tensor(_FLOOR).log10()
        frames_with_sound = math.ceil((len(self._audio) + _REACH) / HOP_LENGTH)
        for begin in range(0, frames_with_sound, N_FRAMES):
            self._watch(0)
            end = min(begin + N_FRAMES, frames_with_sound)
            loudest = torch.maximum(loudest, self._log_energy(begin, end).max())
        return loudest

    def _log_energy(self, begin: int, end: int) -> torch.Tensor:
        samples = self._samples(begin * HOP_LENGTH - _REACH, (end - 1) * HOP_LENGTH + _REACH)
        spectrum = torch.stft(samples, N_FFT, HOP_LENGTH, window=self._window, center=False, return_complex=True)
        return torch.clamp(self._filters @ spectrum.abs() ** 2, min=_FLOOR).log10()

    def _samples(self, begin: int, end: int) -> torch.Tensor:
        """Read samples as float32 in [-1, 1): mirrored before the first one as `torch.stft` does, zero after the last."""
        read = self._audio[max(begin, 0) : end].astype(np.float32) / 32768.0
        mirrored = self._audio[1 : 1 - begin][::-1].astype(np.float32) / 32768.0 if begin < 0 else read[:0]
        silence = np.zeros(end - begin - len(mirrored) - len(read), dtype=np.float32)
        self._forget_pages()
        return torch.from_numpy(np.concatenate([mirrored, read, silence]))

    def _forget_pages(self) -> None:
        # Pages of a mapped file that were read stay resident: three hours would show as 345 MB of this process.
        mapping = self._audio.base
        if isinstance(mapping, mmap.mmap) and not self._audio.flags.writeable:
            mapping.madvise(mmap.MADV_DONTNEED)
