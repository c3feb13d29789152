"""The transcript that an engine produces and the formats render; times are seconds from the start of the recording."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Word:
    """One word with its times; `text` keeps the leading space that the tokenizer made."""

    start: float
    end: float
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A text with the start and end of the speech that it transcribes.

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
    """All segments of one recording in order, with its language."""

    text: str
    segments: tuple[Segment, ...]
    language: str
    language_probability: float | None = None
    quality: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class About:
    """What is known about a recording besides its words, for formats that show it.

    Attributes:
        title: the name that people know it by.
        link: relative URL from the transcript to the recording.
        duration_seconds: its length.
        heights: how loud it is along its length, 0 to 100; empty: not known.
        task: `translate`: the text is English, whatever was spoken.
        made_by: engine and model.
        made_at: UTC, ISO 8601.
    """

    title: str = ""
    link: str = ""
    duration_seconds: float = 0.0
    heights: tuple[int, ...] = ()
    task: str = "transcribe"
    made_by: str = ""
    made_at: str = ""


NOT_KNOWN = About()
