"""The options of one recording and of the engine, each with its type, range, default and meaning.

whisperd.yaml, profiles and tickets set them; `JobSpec` is the result for one recording, and is sent to the worker.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from whisperd.core.display import did_you_mean
from whisperd.core.replacements import REPLACEMENTS_MAX, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Format = Literal[
    "txt", "srt", "vtt", "tsv", "json", "html", "md", "docx", "ass", "lrc"
]  # each is a module of whisperd.output
FORMATS: tuple[Format, ...] = get_args(Format)
LANGUAGES_MAX = 20  # among which a recording may choose
CHANNELS_MAX = 8  # of a recording whose channels are transcribed separately
SPEAKERS_MAX = 20  # that diarization may be told of

# Copied from openai-whisper, because importing its tokenizer loads torch, which the supervisor must not; a test compares them.
_CODES = """
en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi
ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd
gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue
"""
_NAMES = """
afrikaans, albanian, amharic, arabic, armenian, assamese, azerbaijani, bashkir, basque, belarusian, bengali,
bosnian, breton, bulgarian, burmese, cantonese, castilian, catalan, chinese, croatian, czech, danish, dutch,
english, estonian, faroese, finnish, flemish, french, galician, georgian, german, greek, gujarati, haitian,
haitian creole, hausa, hawaiian, hebrew, hindi, hungarian, icelandic, indonesian, italian, japanese, javanese,
kannada, kazakh, khmer, korean, lao, latin, latvian, letzeburgesch, lingala, lithuanian, luxembourgish,
macedonian, malagasy, malay, malayalam, maltese, mandarin, maori, marathi, moldavian, moldovan, mongolian,
myanmar, nepali, norwegian, nynorsk, occitan, panjabi, pashto, persian, polish, portuguese, punjabi, pushto,
romanian, russian, sanskrit, serbian, shona, sindhi, sinhala, sinhalese, slovak, slovenian, somali, spanish,
sundanese, swahili, swedish, tagalog, tajik, tamil, tatar, telugu, thai, tibetan, turkish, turkmen, ukrainian,
urdu, uzbek, valencian, vietnamese, welsh, yiddish, yoruba
"""
LANGUAGES = frozenset(_CODES.split()) | frozenset(" ".join(_NAMES.split()).split(", "))  # codes, and names in English

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _plain(text: str) -> str:
    if re.search(r"<\|.*\|>", text, re.DOTALL):
        raise ValueError("must not contain <|...|>, which is a command to the model")
    return text


def _known(language: str) -> str:
    if language.lower() not in LANGUAGES:
        reason = "must be a language that Whisper knows, by its code such as en, de or fr, or its English name"
        raise ValueError(reason + did_you_mean(language, LANGUAGES))
    return language


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


def _mail_address(address: str) -> str:
    local, _, domain = address.rpartition("@")
    plain = address.isascii() and address.isprintable() and not set(address) & set(' ,;:<>()[]"\\')
    if not plain or address.startswith("-") or not ((domain and local) or "@" not in address):
        raise ValueError("must be a plain mail address, or a local user")
    return address


Prompt = Annotated[str, AfterValidator(_plain)]
Absolute = Annotated[Path, AfterValidator(_absolute)]
MailAddress = Annotated[str, Field(min_length=1), AfterValidator(_mail_address)]
Label = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$")]


class Section(BaseModel):
    """Base of the sections of whisperd.yaml: immutable, without unknown keys, with values of exactly the right type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    def evolve(self, **changes: Any) -> Self:
        """Return a copy with some fields changed; the new values are not validated."""
        return self.model_copy(update=changes)


class TranscribeOptions(Section):
    """How speech becomes text; names and meaning as in openai-whisper's `transcribe` and `DecodingOptions`."""

    language: Annotated[str, AfterValidator(_known)] | None = Field(
        None, description="ISO code such as en or fr; null: detect"
    )
    languages: tuple[Annotated[str, AfterValidator(_known)], ...] = Field(
        (),
        max_length=LANGUAGES_MAX,
        description="languages that may be detected, such as [en, fr]; []: any; without effect if language is set",
    )
    task: Literal["transcribe", "translate"] = Field("transcribe", description="translate: into English")
    initial_prompt: Prompt | None = Field(None, description="text that shows the model style, spelling and names")
    hotwords: Prompt | None = Field(
        None, description="faster-whisper only: expected words, such as names, given to every window"
    )
    vocabulary: tuple[Annotated[Label, AfterValidator(_plain)], ...] = Field(
        (),
        max_length=200,
        description="expected names and terms, given to every window: before the prompt, or as hotwords; 223 tokens fit",
    )
    carry_initial_prompt: bool = Field(
        default=False,
        description="give the prompt to every window, not only the first; with decoding: sequential; other ways of decoding always do",
    )
    condition_on_previous_text: bool = Field(
        default=True, description="each window sees the text before it; with decoding: sequential"
    )
    beam_size: Annotated[int, Field(ge=1, le=20)] | None = Field(
        None, description="beams at temperature 0; null: greedy, faster"
    )
    best_of: Annotated[int, Field(ge=1, le=20)] | None = Field(5, description="candidates at temperatures above 0")
    patience: Positive | None = Field(None, description="beam search patience (arXiv:2204.05424)")
    length_penalty: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="exponent of the length penalty; null: plain length"
    )
    temperature: tuple[Annotated[float, Field(ge=0, le=2)], ...] = Field(
        (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), min_length=1, description="tried in turn while the thresholds fail"
    )
    compression_ratio_threshold: Positive | None = Field(
        2.4, description="above it a window's text repeats itself: next temperature"
    )
    logprob_threshold: float | None = Field(
        -1.0, le=0, description="below it the model counts as unsure: next temperature"
    )
    no_speech_threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(
        0.6, description="above it, and if the model is unsure, a window counts as silence"
    )
    suppress_tokens: str = Field(
        "-1", pattern=r"^(-?\d+(,-?\d+)*)?$", description="token ids never to write; -1: most symbols"
    )
    word_timestamps: bool | None = Field(
        None,
        description="times for every word; null: if they cost next to nothing: with engine: openai-whisper, decoding: batched, task: transcribe",
    )
    hallucination_silence_threshold: Positive | None = Field(
        None,
        description="skip silences longer than this around doubtful text; needs word_timestamps and decoding: sequential",
    )

    @field_validator("patience")
    @classmethod
    def _patience_needs_beams(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("beam_size", ...) is None:
            raise ValueError("needs beam_size")
        return value

    @field_validator("hallucination_silence_threshold")
    @classmethod
    def _silence_needs_words(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and not info.data.get("word_timestamps", True):
            raise ValueError("needs word_timestamps: true")
        return value

    def unfit(self, engine: str, decoding: str) -> Iterator[tuple[str, str]]:
        """Yield key and reason of each option that this engine or this way of decoding does not support."""
        if self.hotwords is not None and engine != "faster-whisper":
            yield "hotwords", "needs engine: faster-whisper; with other engines use initial_prompt or vocabulary"
        if self.hallucination_silence_threshold is not None and (engine == "faster-whisper" or decoding == "batched"):
            yield (
                "hallucination_silence_threshold",
                "needs decoding: sequential; other ways of decoding leave out silence by vad",
            )


class OutputOptions(Section):
    """Which files are written, and how text and subtitles are shaped."""

    formats: tuple[Format, ...] = Field(
        ("txt", "srt", "vtt", "json", "html"),
        min_length=1,
        description=f"files written per recording: {', '.join(FORMATS)}",
    )
    layout: Literal["readable", "raw"] = Field(
        "readable",
        description="readable: paragraphs, and subtitles of at most two lines that one can read in time; raw: a line and a subtitle for each segment, as openai-whisper writes them",
    )
    paragraph_times: bool = Field(default=False, description="begin each paragraph of txt with its time")
    max_line_width: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="characters per subtitle line; null: 42, or 16 of Chinese, Japanese and Korean, and no limit with layout: raw; turns word_timestamps on",
    )
    max_line_count: Annotated[int, Field(ge=1)] | None = Field(
        None, description="lines per subtitle; null: 2, and no limit with layout: raw, where it needs max_line_width"
    )
    max_words_per_line: Annotated[int, Field(ge=1)] | None = Field(
        None, description="words per subtitle; no effect together with max_line_width; turns word_timestamps on"
    )
    highlight_words: bool = Field(
        default=False, description="underline each word as it is spoken; turns word_timestamps on"
    )
    partial: bool = Field(
        default=False,
        description="while interview.mp3 is transcribed, write its text so far to interview.partial.txt; not with decoding: sequential",
    )
    replacements: dict[str, str] = Field(
        {},
        max_length=REPLACEMENTS_MAX,
        description="right words by wrong ones, such as `{Mayer: Meyer}`; a pattern stands between slashes: `{/colou?rs?/: hue}`",
    )

    mail_transcript_to: tuple[MailAddress, ...] = Field(
        (), description="addresses that get the transcripts of a completed recording by mail, see notices"
    )

    def unfit(self) -> Iterator[tuple[str, str]]:
        """Yield key and reason of each option for which a package is missing."""
        if "docx" in self.formats and importlib.util.find_spec("docx") is None:
            yield "formats", "docx needs python-docx: run `pip install 'whisperd[docx]'`, or leave docx out"

    @field_validator("formats")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names one format twice")
        return value

    @field_validator("replacements")
    @classmethod
    def _can_be_made(cls, value: dict[str, str]) -> dict[str, str]:
        found = [f"{wrong!r}: {why}" for wrong, right in value.items() if (why := problem(wrong, right))]
        if found:
            raise ValueError("; ".join(found))
        return value

    @field_validator("max_line_count")
    @classmethod
    def _count_needs_width(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("layout") == "raw" and info.data.get("max_line_width", ...) is None:
            raise ValueError("needs max_line_width with layout: raw")
        return value


class MediaOptions(Section):
    """How recordings are decoded, and limits on them."""

    ffmpeg: Path | None = Field(
        None, strict=False, description="path of ffmpeg; null: the system's, else the one that imageio-ffmpeg carries"
    )
    max_duration_seconds: Positive = Field(43_200.0, description="longer recordings fail")
    stall_seconds: Positive = Field(120.0, description="ffmpeg is stopped when it produces nothing for this long")
    channels: Literal["mix", "split"] = Field(
        "mix",
        description="mix: all channels as one; split: each channel is a separate speaker, named in every format",
    )
    tracks: Literal["first", "all"] | Annotated[int, Field(ge=1)] = Field(
        "first",
        description="first: the first sound track; all: each sound track by itself, named by its title or language; or the number of one",
    )
    speakers: tuple[Label, ...] = Field(
        (),
        max_length=CHANNELS_MAX,
        description="names of the channels with split, or of the tracks with all; without names channels are called Speaker 1, ...",
    )


RECORDING_MEDIA = ("channels", "tracks", "speakers")  # fields of `MediaOptions` that are of one recording


class VadOptions(Section):
    """Voice activity detection, where windows are decoded: only speech is given to the model."""

    enabled: bool = Field(default=True, description="false: the whole recording is given to the model")
    threshold: float = Field(
        0.35, gt=0, lt=1, description="probability above which sound counts as speech (silero-vad)"
    )
    min_speech_seconds: Seconds = Field(0.1, description="shorter speech is dropped")
    min_silence_seconds: Seconds = Field(0.1, description="a shorter pause does not end a region of speech")
    speech_pad_seconds: float = Field(0.2, ge=0, le=2, description="kept before and after a region of speech")


SpeakerCount = Annotated[int, Field(ge=1, le=SPEAKERS_MAX)]


class QualityOptions(Section):
    """When the log warns about a transcript."""

    max_gap_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="the log warns if more than this share of the speech has no text that can be trusted",
    )


class DiarizationOptions(Section):
    """Telling people apart by their voices; needs the weights that `whisperd models fetch speakers` brings."""

    enabled: bool = Field(
        default=False,
        description="true: people are told apart by their voices and called Speaker 1, ... in every format",
    )
    min_speakers: SpeakerCount | None = Field(None, description="there are at least this many people; null: not known")
    max_speakers: SpeakerCount | None = Field(None, description="there are at most this many people; null: not known")
    speakers: SpeakerCount | None = Field(None, description="there are exactly this many people; null: not known")
    voices: Absolute | None = Field(
        None,
        strict=False,
        description="a directory with samples of known voices, such as Anna.wav, which names Anna; null: only the folders `_voices` in the inbox",
    )

    @field_validator("max_speakers")
    @classmethod
    def _most_is_not_below_least(cls, value: int | None, info: ValidationInfo) -> int | None:
        least = info.data.get("min_speakers")
        if value is not None and least is not None and value < least:
            raise ValueError(f"must be at least min_speakers, which is {least}")
        return value

    @field_validator("speakers")
    @classmethod
    def _number_is_within_bounds(cls, value: int | None, info: ValidationInfo) -> int | None:
        least, most = info.data.get("min_speakers"), info.data.get("max_speakers")
        if value is not None and not (least or 1) <= value <= (most or SPEAKERS_MAX):
            raise ValueError("must be within min_speakers and max_speakers, or these must be null")
        return value

    @property
    def bounds(self) -> tuple[int, int | None]:
        """How many people there are at least and at most; None: any number."""
        return (self.speakers, self.speakers) if self.speakers else (self.min_speakers or 1, self.max_speakers)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What a worker loads, and on which device; a change of any field needs a fresh worker."""

    engine: str  # one of `ENGINES`
    model: str  # a name ("base", "large-v3") or a path to a checkpoint, or to a CTranslate2 directory
    models_directory: Path
    device: str  # "auto", "cpu", "cuda", "cuda:1"; several, as in "cuda:0,cuda:2", until a worker gets its place
    threads: int  # per process; at least 1
    script: str = ""  # for the scripted engine of the tests
    decoding: str = "batched"  # "batched": windows of all jobs that the worker holds; "sequential": job after job
    compute_type: str = "auto"  # "fp32", "bf16", "fp16", "int8"; auto: the fastest that the device computes in hardware
    batch_size: int = 16  # windows decoded at once
    ffmpeg: Path | None = None  # the configured one, which a worker tries before it is ready


class EngineEntry(NamedTuple):
    """A line of `ENGINES`: where the code of an engine is, and what it can do."""

    batched: str  # `module:callable` below whisperd.engine, which makes the engine from `EngineOptions`, ...
    sequential: str  # ... and the same for `decoding: sequential`
    shares_batches: Callable[[EngineOptions], bool]  # whether windows of several jobs are decoded together
    words_are_cheap: bool = False  # in batched decoding
    extra: str = ""  # of this package, which installs what the engine imports


ENGINES = {
    "openai-whisper": EngineEntry(
        "whisper_batched.engine:BatchedWhisper",
        "whisper_sequential:OpenAIWhisper",
        shares_batches=lambda options: options.decoding == "batched",
        words_are_cheap=True,
    ),
    "faster-whisper": EngineEntry(
        "faster_whisper:FasterWhisper",
        "faster_whisper:FasterWhisper",
        shares_batches=lambda _options: True,
        extra="faster-whisper",
    ),
    "scripted": EngineEntry(
        "scripted:create",
        "scripted:create",
        shares_batches=lambda options: options.script.startswith("windows,"),
    ),
}


@dataclass(frozen=True, slots=True)
class JobSpec:
    """Everything that is to be done with one recording: made once, when it is claimed, and used for every attempt.

    It is part of the job's record. It is a dataclass and not a `Section`, because the names of tickets may hold bytes that are not
    UTF-8, which pydantic refuses.

    Attributes:
        model: a name or a path, as in `EngineOptions`.
        profile: the globs of the profiles that match, joined by commas.
        tickets: the tickets that were followed, relative to the inbox.
        changes: what profiles and tickets set, key by key.
        origins: which profile or ticket set each of these keys, and in which line, printable.
    """

    model: str
    transcribe: TranscribeOptions
    output: OutputOptions
    media: MediaOptions
    vad: VadOptions
    profile: str | None = None
    tickets: tuple[str, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)
    diarization: DiarizationOptions = field(default_factory=DiarizationOptions)
    quality: QualityOptions = field(default_factory=QualityOptions)
    origins: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> JobSpec:
        """Make a spec from what `to_json` made of one; unknown keys of another release are dropped, missing ones get defaults.

        Up to 0.1 two options of `media` were keys of the spec, and `vad` was null where it was off.

        Raises:
            ValueError: the values are not a job spec.
        """
        try:
            media = values.get("media", {key: values[key] for key in ("channels", "speakers") if key in values})
            vad = {"enabled": False} if values["vad"] is None else values["vad"]
            own = {key: _frozen(values[key]) for key in ("model", "profile", "tickets", "origins") if key in values}
            return cls(
                transcribe=section_from_json(TranscribeOptions, values["transcribe"]),
                output=section_from_json(OutputOptions, values["output"]),
                media=section_from_json(MediaOptions, media),
                vad=section_from_json(VadOptions, vad),
                diarization=section_from_json(DiarizationOptions, values.get("diarization", {})),
                quality=section_from_json(QualityOptions, values.get("quality", {})),
                changes={key: _frozen(each) for key, each in values["changes"].items()},
                **own,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("these values are not a job spec") from error

    def within(self, limits: MediaOptions) -> JobSpec:
        """Return a copy with the current limits on decoding: a reload changes them for waiting jobs too."""
        own = {field: getattr(self.media, field) for field in RECORDING_MEDIA}
        return replace(self, media=limits.evolve(**own))


S = TypeVar("S", bound=Section)


def section_from_json(kind: type[S], values: dict[str, Any]) -> S:
    """Make a section from its recorded values, without keys that this release does not have."""
    known = {key: _frozen(each) for key, each in values.items() if key in kind.model_fields}
    return kind.model_validate(known, strict=False)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def to_json(value: object) -> Any:
    """Turn a section, a dataclass or a path into what JSON knows: the `default` of `json.dumps`."""
    if isinstance(value, Section):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    raise TypeError(f"{type(value).__name__} cannot be encoded as JSON")
