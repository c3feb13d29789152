"""The schema of whisperd.yaml: every key with its type, range, default and meaning.

The sections that profiles and tickets may set for one recording are in `whisperd.core.options`.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo, field_validator

from whisperd.core import devices
from whisperd.core.display import HIDDEN, did_you_mean, without_secrets
from whisperd.core.options import (
    ENGINES,
    RECORDING_MEDIA,
    Absolute,
    DiarizationOptions,
    EngineOptions,
    MailAddress,
    MediaOptions,
    OutputOptions,
    Positive,
    QualityOptions,
    Seconds,
    Section,
    TranscribeOptions,
    VadOptions,
)

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _bytes(value: object) -> object:
    """Read `2G`, `500M` or a plain number of bytes."""
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


def default_models_directory() -> Path:
    """The directory of the service where whisperd is installed as one, otherwise the cache of the user."""
    system = Path("/var/lib/whisperd/models")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return system if system.parent.is_dir() else cache / "whisperd" / "models"


class IntakeOptions(Section):
    """How uploads are found and when they count as complete."""

    settle_seconds: Positive = Field(
        5.0, description="an upload is complete when nothing about it changed for this long"
    )
    settle_seconds_proven: Positive = Field(
        0.25,
        description="the same, where the kernel can say that nobody writes, the container is complete and its owner is not connected over SSH or FTP",
    )
    empty_seconds: Seconds = Field(
        60.0,
        description="an empty file fails, and a file with a hole inside is claimed, after this long; browsers create empty placeholders",
    )
    truncated_seconds: Seconds = Field(
        3600.0, description="an upload shorter than its header promises fails after this long without a change"
    )
    rescan_seconds: Positive = Field(
        30.0, description="the whole inbox is scanned this often, in case events were missed"
    )
    poll_seconds: Positive = Field(5.0, description="the same on network filesystems, which do not report all changes")
    done_marker: str = Field(
        "",
        pattern=r"^(\.[^/\x00]{1,30})?$",
        description="claim X only when X with this suffix is there, such as .done; empty: off",
    )
    duplicates: Literal["process", "skip"] = Field(
        "process",
        description="skip: content that was transcribed before is not transcribed again, its status file points to the earlier transcripts",
    )
    ignore: tuple[str, ...] = Field(
        (),
        description="globs of names that are ignored, in addition to the built-in list, which the page on uploads has",
    )
    remove_junk: bool = Field(
        default=True,
        description="remove side files of Mac, Windows, Synology and Office from the inbox after a day; the page on uploads lists them",
    )
    min_free: Bytes = Field(
        500 << 20, description="below this much free disk space nothing is claimed: bytes, or 500M, 2G"
    )

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names that are no uploads, markers included."""
        return (*self.ignore, f"*{self.done_marker}") if self.done_marker else self.ignore

    @property
    def first_look_seconds(self) -> float:
        """After how much quiet a file is looked at for the first time."""
        return min(self.settle_seconds_proven, self.settle_seconds)


def _device(name: str) -> str:
    if not devices.PATTERN.fullmatch(name) or name == devices.AUTO:
        raise ValueError("must be the name of a device: cpu, cuda, cuda:N or MIG-...")
    return name


DeviceName = Annotated[str, AfterValidator(_device)]


def _devices(value: object) -> str | tuple[str, ...]:
    """Check the key `device`: one device, or a list of different ones."""
    if isinstance(value, str) and devices.PATTERN.fullmatch(value):
        return value
    if not isinstance(value, tuple) or not 0 < len(value) <= devices.DEVICES_MAX:
        raise ValueError("must be auto, cpu, cuda, cuda:N or MIG-..., or a list of such devices")
    for name in value:
        if not isinstance(name, str) or not devices.PATTERN.fullmatch(name) or name in {devices.AUTO, "cuda"}:
            raise ValueError("in a list must be devices with their number, such as [cuda:0, cuda:2]; also cpu, MIG-...")
    if len(set(value)) != len(value):
        raise ValueError("names one device twice; for several workers on it use pool.workers_by_device")
    return value


class PoolOptions(Section):
    """Worker processes, their jobs and their time limits."""

    workers: int = Field(1, ge=1, le=256, description="processes on each device, each with its own copy of the model")
    workers_by_device: dict[DeviceName, Annotated[int, Field(ge=1, le=256)]] = Field(
        {}, description="other numbers of workers for some devices, such as `{cuda:0: 2}`"
    )
    jobs_per_worker: int = Field(
        8, ge=1, le=256, description="jobs whose windows share the batches of a worker; 1 with sequential decoding"
    )
    idle_unload_seconds: Seconds = Field(
        0.0, description="a worker without a job for this long ends and frees its memory; 0: never"
    )
    threads: int | None = Field(
        None, ge=1, le=1024, description="most CPU threads per worker; null: all cores, divided between the workers"
    )
    queue_size: int = Field(
        100, ge=1, le=100_000, description="claimed jobs that may wait; further uploads wait in the inbox"
    )
    max_attempts: int = Field(3, ge=1, le=100, description="attempts after which a file goes to failed/")
    retry_seconds: Seconds = Field(30.0, description="pause before the second attempt, doubled for each further one")
    heartbeat_seconds: Positive = Field(
        600.0, description="a running job without a sign of life for this long is stopped"
    )
    deadline_seconds: Positive = Field(600.0, description="a job may take this long ...")
    deadline_factor: Positive = Field(50.0, description="... plus this many times the length of its audio")
    boot_seconds: Positive = Field(600.0, description="a worker must load its model within this time")
    max_memory: Annotated[Bytes, Field(gt=0)] | None = Field(
        None, description="a worker that holds more than this after a job is replaced: bytes, or 2G; null: never"
    )
    stop_grace_seconds: Seconds = Field(
        20.0, description="on stop, running jobs may continue this long before they are released"
    )


class PageOptions(Section):
    """Pages for people with a browser and no shell."""

    index: bool = Field(
        default=True, description="write outbox/index.html, which shows what runs, waits, is done and has failed"
    )


def _settable() -> dict[str, tuple[str, str]]:
    keys = {field: ("transcription", field) for field in TranscribeOptions.model_fields}
    keys |= {field: ("output", field) for field in OutputOptions.model_fields}
    keys |= {field: ("media", field) for field in RECORDING_MEDIA}
    keys |= {f"vad.{field}": ("vad", field) for field in VadOptions.model_fields}
    return keys | {f"diarization.{field}": ("diarization", field) for field in DiarizationOptions.model_fields}


SETTABLE = _settable()  # what profiles and tickets may set besides `model`: key -> section and field


class TicketOptions(Section):
    """Options in a file: `interview.mp3.yaml` for interview.mp3, `_whisperd.yaml` for a folder and the folders in it."""

    enabled: bool = Field(default=True, description="false: tickets are ignored and stay in the inbox")
    allow: tuple[str, ...] = Field(
        (
            "language",
            "languages",
            "task",
            "initial_prompt",
            "vocabulary",
            "beam_size",
            "word_timestamps",
            "formats",
            "layout",
            "paragraph_times",
            "max_line_width",
            "max_line_count",
            "max_words_per_line",
            "highlight_words",
            "partial",
            "replacements",
            "channels",
            "tracks",
            "speakers",
            "vad.enabled",
            "diarization.enabled",
            "diarization.min_speakers",
            "diarization.max_speakers",
            "diarization.speakers",
        ),
        description="the keys that tickets may set; model allows the models that the configuration names",
    )

    @field_validator("allow")
    @classmethod
    def _are_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [key for key in value if key != "model" and key not in SETTABLE]:
            similar = did_you_mean(unknown[0], ("model", *SETTABLE)) if len(unknown) == 1 else ""
            raise ValueError(f"no such option: {', '.join(unknown)}{similar}")
        return value


Ends = tuple[Literal["completed", "failed"], ...]
ChannelName = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]


def _web_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an address like https://host/path")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a password; receivers trust the signature")
    if parts.port == 0 or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must be a plain web address")
    return url


def _host_name(host: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*", host):
        raise ValueError("must be the name or address of a host; its port is smtp_port")
    return host


def _service_address(address: str) -> str:
    if not address.isprintable() or " " in address or address.startswith(("-", "://")):
        raise ValueError("must be an address such as ntfy://topic, a file, or the name of a systemd credential")
    return address


def _command(words: tuple[str, ...]) -> tuple[str, ...]:
    if words and not words[0].startswith("/"):
        raise ValueError("the command must be an absolute path")
    if any("\0" in word for word in words):
        raise ValueError("must not contain a NUL")
    return words


HostName = Annotated[str, AfterValidator(_host_name)]
ServiceAddress = Annotated[str, Field(min_length=1), AfterValidator(_service_address)]
Command = Annotated[tuple[str, ...], AfterValidator(_command)]


class Webhook(Section):
    """One receiver of webhooks, which are signed HTTP requests."""

    url: Annotated[str, AfterValidator(_web_address)]
    secret: Path = Field(strict=False)
    events: Ends = ("completed", "failed")


class NotificationOptions(Section):
    """Notifications about the end of jobs: commands, webhooks, mail and, by Apprise, chats."""

    on_completed: Command = Field((), description="a command, as a list without a shell, run after a completed job")
    on_failed: Command = Field((), description="the same after a failed job")
    hook_timeout_seconds: Positive = Field(60.0, description="the commands are killed after this long")
    webhooks: dict[ChannelName, Webhook] = Field(
        {}, description="name: {url, secret, events}; the status file is sent there, signed"
    )
    mail_to: tuple[MailAddress, ...] = Field((), description="addresses that get mail")
    mail_from: MailAddress | None = Field(None, description="the sender of mail; null: the default of sendmail")
    mail_events: Ends = Field(("failed",), description="send mail about these: completed, failed")
    sendmail: Absolute = Field(
        Path("/usr/sbin/sendmail"), strict=False, description="the program that sends mail, without smtp_host"
    )
    smtp_host: HostName | None = Field(
        None, description="a mail server that sends mail instead, and needs mail_from; null: sendmail"
    )
    smtp_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="its port; null: 587 with starttls, 465 with tls, 25 with none"
    )
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        "starttls",
        description="starttls: encryption that begins after connecting; tls: from the first byte; none: none",
    )
    smtp_user: Annotated[str, Field(min_length=1)] | None = Field(None, description="the login name; null: no login")
    smtp_password: Path | None = Field(
        None,
        strict=False,
        validate_default=True,
        description="a file with the password, or the name of a systemd credential",
    )
    apprise: tuple[ServiceAddress, ...] = Field(
        (),
        description="addresses of chats and other services such as `ntfy://topic`, or files and systemd credentials with some; needs the extra apprise",
    )
    apprise_events: Ends = Field(("completed", "failed"), description="send to these services about: completed, failed")
    retry_seconds: Positive = Field(
        5.0, description="pause before a webhook or mail is tried again, doubled each time up to an hour"
    )
    keep_seconds: Positive = Field(
        259_200.0, description="webhooks and mail are tried again for this long, then given up"
    )

    @field_validator("apprise")
    @classmethod
    def _has_its_package(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value and importlib.util.find_spec("apprise") is None:
            raise ValueError("needs the package apprise: run `pip install 'whisperd[apprise]'`, or leave this out")
        return value

    @field_validator("mail_events")
    @classmethod
    def _not_empty(cls, value: Ends) -> Ends:
        if not value:
            raise ValueError("must not be empty; to send no mail leave mail_to empty")
        return value

    @field_validator("smtp_host")
    @classmethod
    def _has_a_sender(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("mail_from", ...) is None:
            raise ValueError("needs mail_from, the address that sends the mail")
        return value

    @field_validator("smtp_password")
    @classmethod
    def _is_for_a_user_and_secret(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        user = info.data.get("smtp_user", ...)
        if value is None and isinstance(user, str):
            raise ValueError("must be set, since smtp_user is")
        if value is not None and user is None:
            raise ValueError("needs smtp_user")
        if value is not None and info.data.get("smtp_security") == "none":
            raise ValueError("would be sent for everybody to read; set smtp_security to starttls or tls")
        return value


NOT_SECRET = re.compile(r"mail_.*|smtp_(host|port|user|security)|sendmail|.*_events|.*_seconds")  # keys of `notices`


def public(way: tuple[int | str, ...], value: Any) -> Any:
    """A value of the configuration as it may be printed: `***` stands for tokens and passwords.

    In `notices` a text is taken for a secret unless it is the path of a file or the program of a command: somebody may have
    written a password where a credential is named.

    Args:
        way: from the top of the configuration to the value: keys of mappings, indices of lists.
        value: as it is in YAML, JSON or the schema.
    """
    if isinstance(value, dict):
        return {without_secrets(str(key)): public((*way, key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(public((*way, number), item) for number, item in enumerate(value))
    if not isinstance(value, str | Path):
        return value
    shown = without_secrets(str(value))
    if way[:1] != ("notices",) or shown != str(value) or shown.startswith("/") or _is_no_secret(way[1:]):
        return shown
    return HIDDEN


def _is_no_secret(way: tuple[int | str, ...]) -> bool:
    match way:
        case ("webhooks", _, "events", *_) | ("on_completed" | "on_failed", 0):
            return True
        case (str(key), *_):
            return NOT_SECRET.fullmatch(key) is not None
    return False


class MetricsOptions(Section):
    """Metrics for Prometheus; they need the extra whisperd[metrics]. Changes take effect at the next start."""

    textfile: Absolute | None = Field(
        None,
        strict=False,
        description="a file for the textfile collector of node_exporter, such as /var/lib/whisperd/metrics/whisperd.prom",
    )
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="serve the metrics on this port of 127.0.0.1; the service needs systemd/network.conf for it"
    )
    every_seconds: Positive = Field(15.0, description="how often the metrics are updated")

    @field_validator("textfile")
    @classmethod
    def _named_as_the_collector_wants_it(cls, value: Path | None) -> Path | None:
        if value is not None and value.suffix != ".prom":
            raise ValueError("must end in .prom, or node_exporter does not read it")
        return value


class RetentionOptions(Section):
    """Limits on the size of folders, above which the oldest files are removed; for limits by age see systemd/retention.conf."""

    done_max: Bytes | None = Field(
        None, description="size limit of the originals in done/, such as 50G; above it the oldest are removed"
    )
    failed_max: Bytes | None = Field(None, description="the same for failed/")
    outbox_max: Bytes | None = Field(None, description="the same for transcripts and status files of ended jobs")


def _engine(name: str) -> str:
    if name not in ENGINES:
        *others, last = (repr(each) for each in ENGINES)
        raise ValueError(f"input should be {', '.join(others)} or {last}")
    return name


class Config(Section):
    """The whole configuration: every key of whisperd.yaml."""

    root: Absolute = Field(
        Path("/var/spool/whisperd"),
        strict=False,
        description="the spool: inbox, outbox, done, failed and .work, all on one filesystem",
    )
    models_directory: Path = Field(
        default_factory=default_models_directory, strict=False, description="directory of fetched and imported weights"
    )
    engine: Annotated[str, AfterValidator(_engine)] = Field(
        "openai-whisper",
        description="the program that runs the model: openai-whisper, or faster-whisper (the extra of that name); scripted: a substitute for tests",
    )
    model: str = Field(
        "base",
        min_length=1,
        description="tiny, base, small, medium, large-v3, turbo, tiny.en, ... or the path of a checkpoint, or of a CTranslate2 directory for faster-whisper",
    )
    decoding: Literal["batched", "sequential"] = Field(
        "batched",
        description="batched: windows of all jobs of a worker together, the fastest; sequential: openai-whisper's own transcribe, in which each window knows the text before it",
    )
    compute_type: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        "auto",
        description="for batched decoding and faster-whisper; auto: the fastest that loses no accuracy, which a CPU finds out by timing at its first start; int8 with openai-whisper: on CPUs, all products in 8 bits",
    )
    batch_size: int = Field(
        16, ge=1, le=256, description="windows decoded at once; halved automatically when memory runs out"
    )
    device: Annotated[str | tuple[str, ...], PlainValidator(_devices)] = Field(
        "auto",
        description="auto: every GPU, or the CPU where there is none; cpu, cuda, cuda:N, MIG-UUID, or a list such as [cuda:0, cuda:2]",
    )
    script: str = Field("ok", description="what the scripted engine does, for tests")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least severe messages that are logged: debug, info, warning or error"
    )
    intake: IntakeOptions = IntakeOptions()
    pool: PoolOptions = PoolOptions()
    media: MediaOptions = MediaOptions()
    vad: VadOptions = VadOptions()
    diarization: DiarizationOptions = DiarizationOptions()
    quality: QualityOptions = QualityOptions()
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

    @field_validator("output")
    @classmethod
    def _has_its_packages(cls, value: OutputOptions) -> OutputOptions:
        for key, reason in value.unfit():
            raise ValueError(f"{key}: {reason}")
        return value

    def engine_options(self, model: str | None = None) -> EngineOptions:
        """What a worker loads; without a model, the one that is used where no profile names another."""
        cores = len(os.sched_getaffinity(0))
        threads = self.pool.threads or max(1, cores // self.pool.workers)
        return EngineOptions(
            engine=self.engine,
            model=model or self.model,
            models_directory=self.models_directory,
            device=self.device if isinstance(self.device, str) else ",".join(self.device),
            threads=threads,
            script=self.script,
            decoding=self.decoding,
            compute_type=self.compute_type,
            batch_size=self.batch_size,
            ffmpeg=self.media.ffmpeg,
        )

    def jobs_per_worker(self) -> int:
        """How many jobs a worker can take at once, which depends on the engine."""
        shares = ENGINES[self.engine].shares_batches(self.engine_options())
        return self.pool.jobs_per_worker if shares else 1

    def pool_options(self) -> PoolOptions:
        """The section `pool`, with as many jobs per worker as the engine can take."""
        return self.pool.evolve(jobs_per_worker=self.jobs_per_worker())
