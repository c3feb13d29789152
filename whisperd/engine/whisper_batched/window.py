"""The windows and results of batched decoding, and their spectrograms."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from whisper.audio import HOP_LENGTH, N_FRAMES, N_SAMPLES, log_mel_spectrogram

from whisperd.engine.api import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from torch import Tensor

    from whisperd.core.options import TranscribeOptions
    from whisperd.core.transcript import Segment


@dataclass(frozen=True, slots=True, eq=False)
class BatchWindow:
    """A window of at most 30 s of audio to decode; exactly one of `audio` and `mel` is given.

    Attributes:
        options: of the job. What joins windows to each other (`initial_prompt`, `carry_initial_prompt`,
            `condition_on_previous_text`, `hallucination_silence_threshold`) is for the caller to turn into `prompt`.
        audio: (samples,), 16 kHz mono, int16, or float32 in [-1, 1].
        mel: (n_mels, frames) as `whisper.log_mel_spectrogram` gives it, an even number of at most 3000 frames; run
            through the encoder as it is.
        language: a code; None: `options.language`, and if that is None too, it is detected from this window.
        prompt: tokens of what was said before, or of words to expect; its last 223 are used.
        prefix: tokens that the window's text begins with.
        parts: start and end in samples of the parts whose language is detected too.
        accepts: asked with what was heard in the parts, before anything is decoded.
        only_language: nothing is decoded.
    """

    options: TranscribeOptions
    audio: npt.NDArray[np.int16] | npt.NDArray[np.float32] | None = None
    mel: Tensor | None = None
    language: str | None = None
    prompt: tuple[int, ...] = ()
    prefix: tuple[int, ...] = ()
    parts: tuple[tuple[int, int], ...] = ()
    accepts: Callable[[Sequence[dict[str, float]]], bool] | None = None
    only_language: bool = False


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The text of one window, times in seconds from its start.

    Attributes:
        language: a code.
        language_probability: None if the language was given.
        tokens: what was sampled, timestamps included, without the end.
        text: of all tokens, stripped, as openai-whisper's `decode` gives it. The segments decide what counts.
        segments: none if the window is silent. With word timestamps if the options ask for them.
        covered_seconds: up to where the audio has been dealt with. Less than the window's length if the model stopped
            before its end; decode the rest as a window of its own.
        temperature: of the attempt that was taken.
        avg_logprob: mean log-probability of a token.
        compression_ratio: of the text, by zlib.
        no_speech_prob: of the first attempt's encoder output.
        silent: by `no_speech_threshold` and `logprob_threshold`, nobody speaks.
        attempts: 1, and 1 for each time it was decoded again: with the full 30 s, or at a higher temperature; 0 if only the
            language was asked for, or what was heard was not accepted.
        looped: the attempt that was taken repeated itself and was stopped.
        heard: for each part, the probability of each language that has more than a trace of it.
    """

    language: str
    language_probability: float | None
    tokens: tuple[int, ...]
    text: str
    segments: tuple[Segment, ...]
    covered_seconds: float
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    silent: bool
    attempts: int
    looped: bool
    heard: tuple[dict[str, float], ...] = ()

    @property
    def is_decoded(self) -> bool:
        """Whether this is the text of the window, not only what was heard in it."""
        return self.attempts > 0


FRAMES_PER_SECOND: int = SAMPLE_RATE // HOP_LENGTH
_STEP_FRAMES = 100  # lengths that the encoder runs over, so that short windows meet others of their length
# With 5 s the words of clips of 1 to 4 s were as right as with 30, but every third full stop was lost; with 8 they stayed.
_LEAST_FRAMES = 800
# The language of clips of 1.5 s was detected as well with 4 s as with 8 or 30.
_LEAST_FRAMES_FOR_LANGUAGE = 400
_FAINTEST = 1e-4  # of full scale, -80 dB: three steps of 16 bits


def seconds_of(window: BatchWindow) -> float:
    """Return the length of a window's audio in seconds."""
    if window.mel is not None:
        return window.mel.shape[-1] / FRAMES_PER_SECOND
    assert window.audio is not None
    return len(window.audio) / SAMPLE_RATE


def seed_of(window: BatchWindow) -> int:
    """Compute a seed that is always the same for the same audio."""
    if window.mel is not None:
        return zlib.crc32(window.mel.contiguous().cpu().numpy().tobytes())
    assert window.audio is not None
    return zlib.crc32(np.ascontiguousarray(window.audio).tobytes())


def is_audible(window: BatchWindow) -> bool:
    """Whether a window has any sound; from silence Whisper makes " you", and is too sure of it for the thresholds."""
    if window.audio is None:
        return True
    full_scale = 32768.0 if window.audio.dtype == np.int16 else 1.0
    loudest = max(abs(float(window.audio.max())), abs(float(window.audio.min())))
    return loudest > _FAINTEST * full_scale


def mel_of(window: BatchWindow, n_mels: int, margin_seconds: float | None, device: torch.device) -> Tensor:
    """Compute the log-mel spectrogram of a window, with silence after the audio.

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
    audio = torch.from_numpy(np.array(window.audio)).to(device)  # a copy: torch warns of memory that cannot be written
    audio = audio.float() / 32768.0 if audio.dtype == torch.int16 else audio.float()
    frames = N_FRAMES
    if margin_seconds is not None:
        wanted = (seconds_of(window) + margin_seconds) * FRAMES_PER_SECOND
        least = _LEAST_FRAMES_FOR_LANGUAGE if window.only_language else _LEAST_FRAMES
        frames = min(max(math.ceil(wanted / _STEP_FRAMES) * _STEP_FRAMES, least), N_FRAMES)
    padding = min(frames * HOP_LENGTH, N_SAMPLES) - len(audio)
    mel: Tensor = log_mel_spectrogram(audio, n_mels, padding=padding)
    return mel
