"""The transcript that an engine produces and the formats render; times are seconds from the start of the recording."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Word:
    """One word with its times; `text` keeps the leading space that the tokenizer made."""

    start: float
    end: float
    text: str
    probability: float


class Turn(NamedTuple):
    """One person speaks from `start` to `end`; people are numbered from 0 in the order of their first turns."""

    start: float
    end: float
    speaker: int


@dataclass(frozen=True, slots=True)
class KnownVoices:
    """What the samples of known voices gave: who was recognized, with which score, and which samples could not be used, and why."""

    recognized: dict[str, float] = field(default_factory=dict)
    unusable: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> KnownVoices:
        """Make one from what `to_json` made of it."""
        return cls(dict(values["recognized"]), tuple(values["unusable"]))


@dataclass(frozen=True, slots=True)
class RecordedText:
    """What the engine wrote in a segment, before words were replaced."""

    text: str
    words: tuple[Word, ...] | None = None


@dataclass(frozen=True, slots=True)
class Replaced:
    """The report of one replacement: how often it was made, and whether its pattern came to its end in time."""

    wrong: str
    right: str
    count: int = 0
    is_complete: bool = True


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
    speaker: str | None = None  # where channels are speakers, or people are told apart by their voices
    recorded: RecordedText | None = None  # where words were replaced
    language: str | None = None  # a code, where the recording has several
    is_edited: bool = False  # a person wrote the text: it is shown as it is, and no replacement of before is made in it


# Why a part of a recording is a gap.
GAP_REASONS = {
    "no_text": "speech without text",
    "silence": "taken for silence",
    "loop": "the text repeats itself",
    "doubtful": "the model stayed unsure",
}


@dataclass(frozen=True, slots=True)
class Transcript:
    """All segments of one recording in order, with its language."""

    text: str
    segments: tuple[Segment, ...]
    language: str
    language_probability: float | None = None
    quality: dict[str, Any] = field(default_factory=dict)
    replacements: tuple[Replaced, ...] = ()
    voices: KnownVoices | None = None  # None: no samples

    def languages(self) -> tuple[tuple[float, float, str], ...]:
        """Start, end and language of each run of segments in one language."""
        runs: list[tuple[float, float, str]] = []
        for segment in self.segments:
            language = segment.language or self.language
            if runs and runs[-1][2] == language:
                start, end, _ = runs[-1]
                runs[-1] = (start, max(end, segment.end), language)
            else:
                runs.append((segment.start, segment.end, language))
        return tuple(runs)


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
        recorded_sha256: of the recorded transcript, so that a page can say which one it shows; empty: there is none.
    """

    title: str = ""
    link: str = ""
    duration_seconds: float = 0.0
    heights: tuple[int, ...] = ()
    task: str = "transcribe"
    made_by: str = ""
    made_at: str = ""
    recorded_sha256: str = ""


NOT_KNOWN = About()
