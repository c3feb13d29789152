"""The sections of whisperd.yaml: every key with its type, range, default and meaning."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from whisperd import languages
from whisperd.options import CHANNELS_MAX, VadOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _bytes(value: object) -> object:
    """`2G`, `500M` or a plain number of bytes."""
    if isinstance(value, str):
        number, unit = value.strip().upper().removesuffix("B").removesuffix("I"), ""
        if number and number[-1] in _UNITS:
            number, unit = number[:-1], number[-1]
        try:
            return int(float(number) * _UNITS[unit])
        except ValueError:
            return value
    return value


Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def default_models_directory() -> Path:
    """The service's own where whisperd is installed as one, else the user's cache."""
    system = Path("/var/lib/whisperd/models")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return system if system.parent.is_dir() else cache / "whisperd" / "models"


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


Absolute = Annotated[Path, AfterValidator(_absolute)]


def _plain(text: str) -> str:
    if re.search(r"<\|.*\|>", text, re.DOTALL):
        raise ValueError("must not hold <|...|>, which means something else to the model")
    return text


Prompt = Annotated[str, AfterValidator(_plain)]
Label = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$")]


class Section(BaseModel):
    """What all sections share: frozen, nothing unknown, nothing coerced."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


class Intake(Section):
    """How uploads are found and when they count as complete."""

    settle_seconds: Positive = Field(
        5.0, description="an upload is complete when nothing about it changed for this long"
    )
    settle_seconds_proven: Positive = Field(
        0.25, description="the same, where the kernel says nobody writes and the container is all there"
    )
    empty_seconds: Seconds = Field(
        60.0, description="an empty file is taken, and fails, after this long; browsers make placeholders"
    )
    truncated_seconds: Seconds = Field(
        3600.0, description="an upload shorter than its header promises fails after this long without a change"
    )
    rescan_seconds: Positive = Field(30.0, description="the whole inbox is read this often, whatever the events said")
    poll_seconds: Positive = Field(5.0, description="the same on network filesystems, where events do not tell of all")
    done_marker: str = Field(
        "",
        pattern=r"^(\.[^/\x00]{1,30})?$",
        description="take X only once X with this suffix is there, such as .done; empty: off",
    )
    duplicates: Literal["process", "skip"] = Field(
        "process",
        description="skip: content that was transcribed before is not again, its status file points to the earlier transcripts",
    )
    ignore: tuple[str, ...] = Field((), description="globs of names that are never uploads, besides the built-in list")
    min_free: Bytes = Field(500 << 20, description="below this much free room nothing is claimed: bytes, or 500M, 2G")


class Pool(Section):
    """Worker processes and what is expected of them."""

    workers: int = Field(1, ge=1, le=256, description="processes, each with its own copy of the model")
    jobs_per_worker: int = Field(
        8, ge=1, le=256, description="jobs whose windows share the batches of a worker; 1 with sequential decoding"
    )
    idle_unload_seconds: Seconds = Field(
        0.0, description="a worker without a job for so long ends and gives its memory back; 0: never"
    )
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads per worker; null: all cores, shared out")
    queue_size: int = Field(
        100, ge=1, le=100_000, description="claimed jobs that may wait; the rest waits in the inbox"
    )
    max_attempts: int = Field(3, ge=1, le=100, description="a file that fails or crashes this often goes to failed/")
    retry_seconds: Seconds = Field(30.0, description="pause before a second attempt, doubled for each further one")
    heartbeat_seconds: Positive = Field(600.0, description="a running job that says nothing for this long is stopped")
    deadline_seconds: Positive = Field(600.0, description="a job may take this long ...")
    deadline_factor: Positive = Field(50.0, description="... plus this many times the length of its audio")
    boot_seconds: Positive = Field(600.0, description="a worker must have loaded its model after this long")
    max_memory: Annotated[Bytes, Field(gt=0)] | None = Field(
        None, description="a worker that holds more than this after a job is replaced: bytes, or 2G; null: never"
    )
    stop_grace_seconds: Seconds = Field(
        20.0, description="on stop, running jobs may go on this long before they are released"
    )


class Media(Section):
    """What is read out of a recording, and limits on that."""

    ffmpeg: Path | None = Field(
        None, strict=False, description="path of ffmpeg; null: the system's, else the one that imageio-ffmpeg carries"
    )
    max_duration_seconds: Positive = Field(43_200.0, description="longer recordings fail")
    stall_seconds: Positive = Field(120.0, description="ffmpeg is stopped when it gives nothing for this long")
    channels: Literal["mix", "split"] = Field(
        "mix",
        description="mix: all channels as one; split: each channel is a speaker of its own, named in every format",
    )
    speakers: tuple[Label, ...] = Field(
        (), max_length=CHANNELS_MAX, description="names of the channels with split; else they are called Speaker 1, ..."
    )


class Vad(Section):
    """Voice activity detection, where windows are decoded: what nobody says is not transcribed."""

    enabled: bool = Field(default=True, description="false: everything is given to the model")
    threshold: float = Field(0.35, gt=0, lt=1, description="probability from which on something is speech (silero-vad)")
    min_speech_seconds: Seconds = Field(0.1, description="shorter speech is dropped")
    min_silence_seconds: Seconds = Field(0.1, description="a shorter pause does not end a stretch of speech")
    speech_pad_seconds: float = Field(0.2, ge=0, le=2, description="kept before and after a stretch of speech")

    def options(self) -> VadOptions | None:
        """What the detector needs; None if it is off."""
        if not self.enabled:
            return None
        values = dict(self)
        del values["enabled"]
        return VadOptions(**values)


class Transcription(Section):
    """How speech becomes text; names and meaning as in openai-whisper."""

    language: Annotated[str, AfterValidator(languages.checked)] | None = Field(
        None, description="ISO code such as en or fr; null: detect"
    )
    task: Literal["transcribe", "translate"] = Field("transcribe", description="translate: into English")
    initial_prompt: Prompt | None = Field(None, description="text that sets style, spelling and names")
    hotwords: Prompt | None = Field(
        None, description="faster-whisper only: words to expect, such as names, given to every window"
    )
    vocabulary: tuple[Annotated[Label, AfterValidator(_plain)], ...] = Field(
        (),
        max_length=200,
        description="names and terms to expect, given to every window: before the prompt, or as hotwords; 223 tokens fit",
    )
    carry_initial_prompt: bool = Field(
        default=False,
        description="give the prompt to every window, not only the first; with decoding: sequential, elsewhere it always is",
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
    logprob_threshold: float | None = Field(-1.0, le=0, description="below it the model is unsure: next temperature")
    no_speech_threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(
        0.6, description="above it, and unsure, a window is silence"
    )
    suppress_tokens: str = Field(
        "-1", pattern=r"^(-?\d+(,-?\d+)*)?$", description="token ids never to write; -1: most symbols"
    )
    word_timestamps: bool = Field(default=False, description="a time for every word (slower)")
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
        """Key and reason of what another engine, or another way of decoding, would be needed for."""
        if self.hotwords is not None and engine != "faster-whisper":
            yield "hotwords", "needs engine: faster-whisper; others have initial_prompt and vocabulary"
        if self.hallucination_silence_threshold is not None and (engine == "faster-whisper" or decoding == "batched"):
            yield "hallucination_silence_threshold", "needs decoding: sequential; elsewhere vad leaves silence out"


class Output(Section):
    """Which files are written, and how subtitles are shaped; meaning as in openai-whisper's writers."""

    formats: tuple[Literal["txt", "srt", "vtt", "tsv", "json", "html"], ...] = Field(
        ("txt", "srt", "vtt", "json", "html"),
        min_length=1,
        description="files written per recording: txt, srt, vtt, tsv, json, html",
    )
    max_line_width: Annotated[int, Field(ge=1)] | None = Field(
        None, description="characters per subtitle line; turns word_timestamps on"
    )
    max_line_count: Annotated[int, Field(ge=1)] | None = Field(
        None, description="lines per subtitle; needs max_line_width"
    )
    max_words_per_line: Annotated[int, Field(ge=1)] | None = Field(
        None, description="words per subtitle line, without effect beside max_line_width; turns word_timestamps on"
    )
    highlight_words: bool = Field(
        default=False, description="underline each word as it is spoken; turns word_timestamps on"
    )
    partial: bool = Field(
        default=False,
        description="while interview.mp3 is transcribed, keep its text so far as interview.partial.txt; not with decoding: sequential",
    )

    @field_validator("formats")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names one format twice")
        return value

    @field_validator("max_line_count")
    @classmethod
    def _count_needs_width(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("max_line_width", ...) is None:
            raise ValueError("needs max_line_width")
        return value


class Pages(Section):
    """Pages for people with a browser and no shell."""

    index: bool = Field(default=True, description="keep outbox/index.html: what runs, waits, is done and has failed")


def _settable() -> dict[str, tuple[str, str]]:
    keys = {field: ("transcription", field) for field in Transcription.model_fields}
    keys |= {field: ("output", field) for field in Output.model_fields}
    keys |= {field: ("media", field) for field in ("channels", "speakers")}
    return keys | {f"vad.{field}": ("vad", field) for field in Vad.model_fields}


SETTABLE = _settable()  # by profiles and tickets, besides `model`: their key -> section and field here


class Tickets(Section):
    """Options as a file: `interview.mp3.yaml` beside interview.mp3, `_whisperd.yaml` for a folder and those in it."""

    enabled: bool = Field(default=True, description="false: tickets are left lying, and followed by nobody")
    allow: tuple[str, ...] = Field(
        (
            "language",
            "task",
            "initial_prompt",
            "vocabulary",
            "beam_size",
            "word_timestamps",
            "formats",
            "max_line_width",
            "max_line_count",
            "max_words_per_line",
            "highlight_words",
            "partial",
            "channels",
            "speakers",
            "vad.enabled",
        ),
        description="what they may set; model among it means those that the configuration names",
    )

    @field_validator("allow")
    @classmethod
    def _are_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [key for key in value if key != "model" and key not in SETTABLE]:
            raise ValueError(f"no such option: {', '.join(unknown)}")
        return value
