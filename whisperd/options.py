"""What a job is asked to do: plain values that cross to the worker. Their defaults live in `whisperd.config` alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from whisperd.job import Signature


CHANNELS_MAX = 8  # of a recording that can be told apart


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Which weights to load and where; a change of any field needs a fresh worker."""

    engine: str  # "openai-whisper" | "faster-whisper" | "scripted"
    model: str  # a name ("base", "large-v3") or a path to a checkpoint, or to a CTranslate2 directory
    models_directory: Path
    device: str  # "auto", "cpu", "cuda", "cuda:1"
    threads: int  # per process; at least 1
    script: str = ""  # for the scripted engine of the tests
    decoding: str = "batched"  # "batched": windows of all jobs that the worker holds; "sequential": job after job
    compute_type: str = "auto"  # "fp32", "bf16", "fp16", "int8"; auto: the fastest that the device computes in hardware
    batch_size: int = 16  # windows decoded at once
    ffmpeg: Path | None = None  # the configured one, which a worker tries before it is ready


@dataclass(frozen=True, slots=True)
class TranscribeOptions:
    """How one recording is transcribed; names and meaning as in openai-whisper's `transcribe` and `DecodingOptions`."""

    language: str | None  # None: detect
    task: str  # "transcribe" | "translate"
    initial_prompt: str | None
    carry_initial_prompt: bool
    condition_on_previous_text: bool
    beam_size: int | None  # None: greedy
    best_of: int | None
    patience: float | None
    length_penalty: float | None
    temperature: tuple[float, ...]
    compression_ratio_threshold: float | None
    logprob_threshold: float | None
    no_speech_threshold: float | None
    suppress_tokens: str
    word_timestamps: bool
    hallucination_silence_threshold: float | None
    hotwords: str | None = None  # of faster-whisper: words to expect, put before the prompt


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Which files are written and how subtitles are shaped; meaning as in openai-whisper's writers."""

    formats: tuple[str, ...]  # of "txt", "srt", "vtt", "tsv", "json", "html"
    max_line_width: int | None
    max_line_count: int | None
    max_words_per_line: int | None
    highlight_words: bool
    partial: bool = False  # the text so far is shown while the windows are decoded


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """Limits on what is read out of a recording."""

    ffmpeg: Path | None  # None: the system's, else the one that imageio-ffmpeg carries
    max_duration_seconds: float
    stall_seconds: float  # ffmpeg may be silent this long
    channels: str = "mix"  # "mix": one track of all channels; "split": each channel is a speaker of its own
    speakers: tuple[str, ...] = ()  # names of the channels; those without one are numbered


@dataclass(frozen=True, slots=True)
class VadOptions:
    """What counts as speech; names as in silero-vad, lengths in seconds."""

    threshold: float  # speech begins at this probability, and ends 0.15 below it
    min_speech_seconds: float  # what is shorter is dropped
    min_silence_seconds: float  # a pause shorter than this does not end a region
    speech_pad_seconds: float  # kept on either side of a region


@dataclass(frozen=True, slots=True)
class Ticket:
    """Options that came as a file beside an upload, or for its folder, as yet unchecked."""

    name: str  # relative to the inbox
    suffix: str = ""  # what its name adds to that of the upload; empty: it is its folder's
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)  # where each key stands, from 1 on
    problems: tuple[str, ...] = ()  # why it could not be read
    signature: Signature | None = None  # of the file as it was read


@dataclass(frozen=True, slots=True)
class Order:
    """What is done with one recording: settled once, when it is claimed, and the same for every attempt.

    Kept in the job's record: a field that comes later, here or in what it holds, needs a default, for old jobs lack it.
    """

    model: str
    transcribe: TranscribeOptions
    output: OutputOptions
    vad: VadOptions | None
    channels: str = "mix"
    speakers: tuple[str, ...] = ()
    profile: str | None = None  # those that match
    tickets: tuple[str, ...] = ()  # those that were followed
    changes: dict[str, Any] = field(default_factory=dict)  # what profiles and tickets said, key by key


@dataclass(frozen=True, slots=True)
class JobOptions:
    """All that a worker needs to know about one job beyond the file itself."""

    transcribe: TranscribeOptions
    output: OutputOptions
    media: MediaOptions
    vad: VadOptions | None  # None: windows are cut where it is quietest, and nothing is left out
