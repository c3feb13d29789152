"""The schema of whisperd.yaml as a whole, and its loading.

Unknown keys, wrong types and bad ranges are all reported at once, each with its dotted key.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from whisperd.core.errors import ConfigError
from whisperd.core.options import EngineOptions, MediaOptions, OutputOptions, Section, TranscribeOptions, VadOptions
from whisperd.settings import profiles
from whisperd.settings.sections import (
    Absolute,
    IntakeOptions,
    MetricsOptions,
    NotificationOptions,
    PageOptions,
    PoolOptions,
    RetentionOptions,
    TicketOptions,
    default_models_directory,
)

SYSTEM_CONFIG = Path("/etc/whisperd/whisperd.yaml")


class Config(Section):
    """Everything that can be set."""

    root: Absolute = Field(
        Path("/var/spool/whisperd"),
        strict=False,
        description="the spool: inbox, outbox, done, failed and .work, all on one filesystem",
    )
    models_directory: Path = Field(
        default_factory=default_models_directory, strict=False, description="fetched and imported weights"
    )
    engine: Literal["openai-whisper", "faster-whisper", "scripted"] = Field(
        "openai-whisper",
        description="what runs the model: openai-whisper, or faster-whisper (the extra of that name); scripted: a stand-in for tests",
    )
    model: str = Field(
        "base",
        min_length=1,
        description="tiny, base, small, medium, large-v3, turbo, tiny.en, ... or the path of a checkpoint, or of a CTranslate2 directory for faster-whisper",
    )
    decoding: Literal["batched", "sequential"] = Field(
        "batched",
        description="batched: windows of all jobs of a worker together, fastest; sequential: openai-whisper's own transcribe, each window knows the text before it",
    )
    compute_type: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        "auto",
        description="of batched decoding and of faster-whisper; auto: the fastest that the device computes in hardware and that loses nothing; int8 with openai-whisper: on CPUs, half of the encoder's products in 8 bits, measured with base only",
    )
    batch_size: int = Field(
        16, ge=1, le=256, description="windows decoded at once; halved by itself when memory runs out"
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    script: str = Field("ok", description="what the scripted engine does, for tests")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="what the journal gets")
    intake: IntakeOptions = IntakeOptions()
    pool: PoolOptions = PoolOptions()
    media: MediaOptions = MediaOptions()
    vad: VadOptions = VadOptions()
    transcription: TranscribeOptions = TranscribeOptions()
    output: OutputOptions = OutputOptions()
    profiles: dict[str, dict[str, Any]] = Field(
        {},
        description="options by glob of the path in the inbox, such as `french/**: {language: fr}`; of several that match, later ones win key by key",
    )
    tickets: TicketOptions = TicketOptions()
    notices: NotificationOptions = NotificationOptions()
    metrics: MetricsOptions = MetricsOptions()
    retention: RetentionOptions = RetentionOptions()
    pages: PageOptions = PageOptions()

    @field_validator("transcription")
    @classmethod
    def _fits_the_engine(cls, value: TranscribeOptions, info: ValidationInfo) -> TranscribeOptions:
        if "engine" in info.data and "decoding" in info.data:
            for key, reason in value.unfit(info.data["engine"], info.data["decoding"]):
                raise ValueError(f"{key} {reason}")
        return value

    def engine_options(self, model: str | None = None) -> EngineOptions:
        """What a worker loads; None: the model that is used where no profile names another."""
        cores = len(os.sched_getaffinity(0))
        threads = self.pool.threads or max(1, cores // self.pool.workers)
        return EngineOptions(
            engine=self.engine,
            model=model or self.model,
            models_directory=self.models_directory,
            device=self.device,
            threads=threads,
            script=self.script,
            decoding=self.decoding,
            compute_type=self.compute_type,
            batch_size=self.batch_size,
            ffmpeg=self.media.ffmpeg,
        )

    def jobs_per_worker(self) -> int:
        """How many jobs a worker can take at once."""
        takes_windows = {
            "faster-whisper": True,
            "openai-whisper": self.decoding == "batched",
            "scripted": self.script.startswith("windows,"),
        }
        return self.pool.jobs_per_worker if takes_windows[self.engine] else 1

    def pool_options(self) -> PoolOptions:
        """The section `pool`, with as many jobs per worker as the engine can take."""
        return self.pool.evolve(jobs_per_worker=self.jobs_per_worker())


def load(path: Path | None = None, *, root: Path | None = None, **changes: Any) -> Config:
    """The configuration: from `path`, else /etc/whisperd/whisperd.yaml, else the defaults.

    Args:
        path: a file that must exist.
        root: where the spool is, in place of what the file says; with it and no `path`, no file is read.
        changes: top-level keys to set in place of what the file says.

    Raises:
        ConfigError: every problem at once.
    """
    if path is None and root is None and SYSTEM_CONFIG.exists():
        path = SYSTEM_CONFIG
    values: Any = {} if path is None else _read(path)
    source = str(path) if path else "built-in defaults"
    if not isinstance(values, dict):
        raise ConfigError(source, ["the file must hold `key: value` lines"])
    if root is not None:
        values |= {"root": str(root.absolute())}
    values |= changes
    return validate(values, source=source)


def validate(values: dict[str, Any], *, source: str) -> Config:
    """A configuration from plain values.

    Raises:
        ConfigError: every problem at once, under the name `source`.
    """
    values, problems = _tuples(values), []
    try:
        config = usable = Config.model_validate(values)
    except ValidationError as error:
        problems = [f"{key or '(file)'}: {reason}" for key, reason in map(profiles.describe, error.errors())]
        usable = _without(values, {found["loc"][0] for found in error.errors() if found["loc"]})
    problems += profiles.problems(usable, usable.profiles)
    if problems:
        raise ConfigError(source, problems)
    return config


def _without(values: dict[str, Any], bad: set[int | str]) -> Config:
    """The configuration without the sections that cannot be used, so that what is wrong elsewhere is told as well."""
    try:
        return Config.model_validate({key: value for key, value in values.items() if key not in bad})
    except ValidationError:
        return Config()


def _read(path: Path) -> Any:
    try:
        return yaml.load(path.read_text("utf-8"), Loader=_UniqueKeys) or {}  # noqa: S506  # a SafeLoader
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [" ".join(str(error).split())]) from error


class _UniqueKeys(yaml.SafeLoader):
    """YAML where a key that stands twice is an error, not a silent loss of the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _tuples(value: Any) -> Any:
    """YAML has lists where the schema, being frozen, has tuples; and 5 where it has 5.0."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return value
