"""What an engine produces and a writer renders: values in seconds of the file's own time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Word:
    """One word; `text` keeps its leading space as the tokenizer made it."""

    start: float
    end: float
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech with its text.

    `seek` is the start of the window in frames of 10 ms, `tokens` are the model's, timestamps included: both as
    openai-whisper's JSON has them.
    """

    start: float
    end: float
    text: str
    tokens: tuple[int, ...] = ()
    seek: int = 0
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 0.0
    no_speech_prob: float = 0.0
    words: tuple[Word, ...] | None = None
    speaker: str | None = None  # where channels are speakers


@dataclass(frozen=True, slots=True)
class Transcript:
    """The whole of one recording, in order."""

    text: str
    segments: tuple[Segment, ...]
    language: str
    language_probability: float | None = None
    quality: dict[str, Any] = field(default_factory=dict)
