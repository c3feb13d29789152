"""The sections of whisperd.yaml for whoever runs the machine: who is told, what is measured, what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator

from whisperd.options import Positive, Section
from whisperd.sections import Absolute, Bytes

Ends = tuple[Literal["completed", "failed"], ...]
ChannelName = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]


def _web_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an address like https://host/path")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a password; receivers trust the signature")
    if parts.port == 0 or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("is no plain web address")
    return url


def _mail_address(address: str) -> str:
    local, _, domain = address.rpartition("@")
    plain = address.isascii() and address.isprintable() and not set(address) & set(' ,;:<>()[]"\\')
    if not plain or address.startswith("-") or not ((domain and local) or "@" not in address):
        raise ValueError("must be a plain mail address, or a local user")
    return address


def _command(words: tuple[str, ...]) -> tuple[str, ...]:
    if words and not words[0].startswith("/"):
        raise ValueError("the command must be an absolute path")
    if any("\0" in word for word in words):
        raise ValueError("holds a NUL")
    return words


MailAddress = Annotated[str, Field(min_length=1), AfterValidator(_mail_address)]
Command = Annotated[tuple[str, ...], AfterValidator(_command)]


class Webhook(Section):
    """One receiver of signed HTTP requests."""

    url: Annotated[str, AfterValidator(_web_address)]
    secret: Path = Field(strict=False)
    events: Ends = ("completed", "failed")


class Notices(Section):
    """Who is told when a job has ended."""

    on_completed: Command = Field((), description="a command, as a list without a shell, run after a completed job")
    on_failed: Command = Field((), description="the same after a failed job")
    hook_timeout_seconds: Positive = Field(60.0, description="those commands are killed after this long")
    webhooks: dict[ChannelName, Webhook] = Field(
        {}, description="name: {url, secret, events}; the status file is sent there, signed"
    )
    mail_to: tuple[MailAddress, ...] = Field((), description="addresses that get a mail")
    mail_from: MailAddress | None = Field(None, description="its sender; null: as sendmail has it")
    mail_events: Ends = Field(("failed",), description="of which ends mail tells: completed, failed")
    sendmail: Absolute = Field(Path("/usr/sbin/sendmail"), strict=False, description="what sends mail")
    retry_seconds: Positive = Field(
        5.0, description="pause before a webhook or mail is tried again, doubled each time up to an hour"
    )
    keep_seconds: Positive = Field(259_200.0, description="for so long they are tried again, then given up")

    @field_validator("mail_events")
    @classmethod
    def _not_empty(cls, value: Ends) -> Ends:
        if not value:
            raise ValueError("names no end; for no mail leave mail_to empty")
        return value


class Metrics(Section):
    """Figures for Prometheus; needs the extra whisperd[metrics]. Changes take effect at the next start."""

    textfile: Absolute | None = Field(
        None,
        strict=False,
        description="a file for the textfile collector of node_exporter, such as /var/lib/whisperd/metrics/whisperd.prom",
    )
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="serve them on this port of 127.0.0.1; the service needs systemd/network.conf for it"
    )
    every_seconds: Positive = Field(15.0, description="how often they are brought up to date")

    @field_validator("textfile")
    @classmethod
    def _named_as_the_collector_wants_it(cls, value: Path | None) -> Path | None:
        if value is not None and value.suffix != ".prom":
            raise ValueError("must end in .prom, or node_exporter does not read it")
        return value


class Retention(Section):
    """How much is kept, by size; by age: systemd/retention.conf."""

    done_max: Bytes | None = Field(
        None, description="originals in done/: above this the oldest are removed, such as 50G"
    )
    failed_max: Bytes | None = Field(None, description="the same for failed/")
    outbox_max: Bytes | None = Field(None, description="the same for transcripts and status files of ended jobs")
