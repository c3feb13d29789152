"""What goes into batched decoding and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from whisperd.options import TranscribeOptions
    from whisperd.transcript import Segment


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """At most 30 s of audio to be decoded by itself; exactly one of `audio` and `mel` is given.

    Attributes:
        options: of the job. What joins windows to each other (`initial_prompt`, `carry_initial_prompt`,
            `condition_on_previous_text`, `hallucination_silence_threshold`) is for the caller to turn into `prompt`.
        audio: (samples,), 16 kHz mono, int16, or float32 in [-1, 1].
        mel: (n_mels, frames) as `whisper.log_mel_spectrogram` gives it, an even number of at most 3000 frames; run
            through the encoder as it is.
        language: a code; None: `options.language`, and if that is None too, it is detected from this window.
        prompt: tokens of what was said before, or of words to expect; its last 223 are used.
        prefix: tokens that the window's text begins with.
    """

    options: TranscribeOptions
    audio: npt.NDArray[np.int16] | npt.NDArray[np.float32] | None = None
    mel: Tensor | None = None
    language: str | None = None
    prompt: tuple[int, ...] = ()
    prefix: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Decoded:
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
        attempts: 1, and 1 for each time it was decoded again: with the full 30 s, or at a higher temperature.
        looped: the attempt that was taken repeated itself and was stopped.
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
