"""The format json: everything that the engine said about each segment, with the fields of the `whisper` command.

Differences from openai-whisper 20250625: the file is not escaped to ASCII; NaN and infinity, which JSON does not have, are
null; either every segment has `words` or none has; where channels are speakers, each segment has a field `speaker`; where
several languages are spoken, each segment has a field `language`, and `languages` names the parts of the recording.
`gaps` names the speech that has no text that can be trusted, if there is any. Where there are samples of known voices, `voices`
says who was `recognized`, with which score, and which samples were `unusable`, and why.

The file is the recorded transcript, from which all formats can be rendered again: `recording` says what they show besides its
words. `replacements` reports each replacement and how often it was made; a segment in which one was made keeps, in
`recorded`, what the engine wrote. `edited` is true where a person wrote the text on the transcript page.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from whisperd.core.replacements import correct, problem
from whisperd.core.transcript import NOT_KNOWN, About, RecordedText, Replaced, Segment, Transcript, Word
from whisperd.output.text import has_speakers, has_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.core.options import OutputOptions


def write(transcript: Transcript, _options: OutputOptions, about: About) -> str:
    """Return the text of the file."""
    with_words, with_speakers = has_words(transcript), has_speakers(transcript)
    with_languages = any(segment.language for segment in transcript.segments)
    segments = [
        {
            "id": index,
            "seek": segment.seek,
            "start": _finite(segment.start),
            "end": _finite(segment.end),
            "text": segment.text,
            "tokens": segment.tokens,
            "temperature": _finite(segment.temperature),
            "avg_logprob": _finite(segment.avg_logprob),
            "compression_ratio": _finite(segment.compression_ratio),
            "no_speech_prob": _finite(segment.no_speech_prob),
            **({"speaker": segment.speaker} if with_speakers else {}),
            **({"language": segment.language} if with_languages else {}),
            **({"words": [_word(word) for word in segment.words or ()]} if with_words else {}),
            **({"recorded": _recorded(segment.recorded)} if segment.recorded else {}),
            **({"edited": True} if segment.is_edited else {}),
        }
        for index, segment in enumerate(transcript.segments)
    ]
    result: dict[str, Any] = {"text": transcript.text, "segments": segments, "language": transcript.language}
    if with_languages:
        result["languages"] = [
            {"start": _finite(start), "end": _finite(end), "language": code}
            for start, end, code in transcript.languages()
        ]
    if gaps := transcript.quality.get("gaps"):
        result["gaps"] = gaps
    if transcript.voices is not None:
        result["voices"] = dataclasses.asdict(transcript.voices)
    if transcript.replacements:
        result["replacements"] = [_replaced(each) for each in transcript.replacements]
    if about != NOT_KNOWN:
        result["recording"] = {
            "duration_seconds": _finite(about.duration_seconds),
            "task": about.task,
            "made_by": about.made_by,
            "made_at": about.made_at,
            "heights": about.heights,
        }
    return json.dumps(result, ensure_ascii=False, allow_nan=False)


Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]


class Fields(BaseModel):
    """Base of the objects in the file; fields of other releases are no error."""

    model_config = ConfigDict(strict=True)


class WordFields(Fields):
    """One word."""

    start: Number
    end: Number
    word: str
    probability: Number = 1.0

    def value(self) -> Word:
        """The word as formats render it."""
        return Word(self.start, self.end, self.word, self.probability)


class TextFields(Fields):
    """A text with its words."""

    text: str
    words: list[WordFields] | None = None

    def value(self) -> RecordedText:
        """The text as it was recorded."""
        return RecordedText(self.text, None if self.words is None else tuple(word.value() for word in self.words))


class SegmentFields(TextFields):
    """One segment."""

    start: Number
    end: Number
    tokens: list[int] = []
    seek: int = 0
    temperature: Number = 0.0
    avg_logprob: Number = 0.0
    compression_ratio: Number = 0.0
    no_speech_prob: Number = 0.0
    speaker: str | None = None
    language: str | None = None
    recorded: TextFields | None = None
    edited: bool = False

    def segment(self, content: RecordedText) -> Segment:
        """The segment with this text and these words."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return Segment(
            **numbers,
            text=content.text,
            words=content.words,
            tokens=tuple(self.tokens),
            speaker=self.speaker,
            language=self.language,
            is_edited=self.edited,
        )


_NUMBERS = ("start", "end", "seek", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob")


class ReplacementFields(Fields):
    """The report of one replacement."""

    wrong: str
    right: str
    count: int = 0

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        if why := problem(self.wrong, self.right):
            raise ValueError(why)
        return self


class RecordingFields(Fields):
    """What formats show besides words."""

    duration_seconds: Number = 0.0
    task: str = "transcribe"
    made_by: str = ""
    made_at: str = ""
    heights: list[int] = []


class GapFields(Fields):
    """Speech without text that can be trusted."""

    start: float = Field(alias="from", ge=0, allow_inf_nan=False)
    end: float = Field(alias="to", ge=0, allow_inf_nan=False)
    why: Literal["no_text", "silence", "loop", "doubtful"]


class TranscriptFields(Fields):
    """The whole file."""

    segments: list[SegmentFields]
    text: str = ""
    language: str = ""
    replacements: list[ReplacementFields] = []
    gaps: list[GapFields] = []
    recording: RecordingFields = RecordingFields()


def read(data: bytes) -> tuple[Transcript, About]:
    """Read a recorded transcript: the words as the engine wrote them, and the replacements that were made since.

    A segment that somebody has edited has its edited text, and what was recorded of it counts no more.

    Raises:
        ValueError: it is no recorded transcript; the text says where.
    """
    try:
        document = TranscriptFields.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from error
    made = tuple(Replaced(each.wrong, each.right, each.count) for each in document.replacements)
    segments = tuple(_recorded_segments(document, {each.wrong: each.right for each in made}))
    if document.text == "".join(each.text for each in document.segments):
        document.text = "".join(segment.text for segment in segments)
    about = document.recording.model_dump() | {"heights": tuple(document.recording.heights)}
    gaps = [gap.model_dump(by_alias=True) for gap in document.gaps]
    quality = {"gaps": gaps} if gaps else {}
    return Transcript(document.text, segments, document.language, quality=quality, replacements=made), About(**about)


def _recorded_segments(document: TranscriptFields, replacements: dict[str, str]) -> Iterator[Segment]:
    before = [each.segment((each.recorded or each).value()) for each in document.segments]
    after = correct(Transcript("", tuple(before), ""), replacements).segments
    for fields, recorded, corrected in zip(document.segments, before, after, strict=True):
        now = fields.value()
        yield recorded if now == RecordedText(corrected.text, corrected.words) else fields.segment(now)


def _word(word: Word) -> dict[str, str | float | None]:
    return {
        "word": word.text,
        "start": _finite(word.start),
        "end": _finite(word.end),
        "probability": _finite(word.probability),
    }


def _recorded(recorded: RecordedText) -> dict[str, Any]:
    words = {} if recorded.words is None else {"words": [_word(word) for word in recorded.words]}
    return {"text": recorded.text, **words}


def _replaced(replaced: Replaced) -> dict[str, str | int | bool]:
    report: dict[str, str | int | bool] = {"wrong": replaced.wrong, "right": replaced.right, "count": replaced.count}
    return report if replaced.is_complete else {**report, "complete": False}


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
