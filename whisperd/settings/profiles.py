"""Resolves the configuration, the profiles that match a recording and its tickets into one `JobSpec`.

The later source wins, key by key, as in .gitattributes: the configuration, each profile that matches in the order of the
file, the tickets of the folders from the inbox downwards, and the recording's own ticket.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from whisperd.core.display import Position, did_you_mean, printable, without_secrets
from whisperd.core.errors import InputError
from whisperd.core.options import (
    ENGINES,
    DiarizationOptions,
    JobSpec,
    MediaOptions,
    OutputOptions,
    TranscribeOptions,
    VadOptions,
)
from whisperd.settings.sections import SETTABLE, public

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from whisperd.core.job import Ticket
    from whisperd.core.options import Section
    from whisperd.settings.sections import Config

PROBLEMS_SHOWN = 10
_WILD = re.compile(r"\*\*/|\*\*|\*|\?")
_MEANING = {"**/": "(?:.+/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@functools.lru_cache(maxsize=1024)
def _pattern(glob: str) -> re.Pattern[str]:
    parts, at = [], 0
    for wild in _WILD.finditer(glob):
        parts += [re.escape(glob[at : wild.start()]), _MEANING[wild[0]]]
        at = wild.end()
    return re.compile("".join([*parts, re.escape(glob[at:])]), re.DOTALL)


def matches(glob: str, name: str) -> bool:
    """Whether a path relative to the inbox matches: `*` and `?` stay within a folder, `**` goes through any."""
    return _pattern(glob).fullmatch(name) is not None


def describe(error: Any, *, suggests: bool = True) -> tuple[str, str]:
    """Turn one of pydantic's errors into a key and a reason for people, without secrets; it suggests the word that was meant."""
    key = ".".join(without_secrets(str(part)) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return key, "unknown key"
    message, value = error["msg"].removeprefix("Value error, "), error["input"]
    given = "" if isinstance(value, (dict, BaseModel)) else f" (given: {_short(public(error['loc'], value))})"
    nearest = ""
    if suggests and error["type"] == "literal_error" and isinstance(value, str):
        nearest = did_you_mean(value, re.findall("'(.*?)'", error["ctx"]["expected"]))
    return key, f"{message[0].lower()}{message[1:]}{given}{nearest}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."  # noqa: PLR2004  # a ticket may contain anything


@dataclass(frozen=True, slots=True)
class Sections:
    """The sections of the configuration that can differ from recording to recording."""

    transcription: TranscribeOptions
    output: OutputOptions
    media: MediaOptions
    vad: VadOptions
    diarization: DiarizationOptions


def changed(config: Config, changes: Mapping[str, Any]) -> tuple[Sections, list[tuple[str, str]]]:
    """Apply changes to the sections; return them, and key and reason of every change that is wrong."""
    sections: dict[str, Any] = {each.name: getattr(config, each.name) for each in fields(Sections)}
    known = ("model", *SETTABLE)
    problems = [(key, "unknown key") for key in changes if key not in known]
    # a ticket may have thousands, and comparing all of them would stop the daemon for seconds
    problems[:PROBLEMS_SHOWN] = [(key, why + did_you_mean(key, known)) for key, why in problems[:PROBLEMS_SHOWN]]
    for name, section in sections.items():
        wanted = {field: changes[key] for key, (where, field) in SETTABLE.items() if where == name and key in changes}
        try:
            if wanted:
                sections[name] = _with(section, wanted)
        except ValidationError as error:
            prefix = f"{name}." if name in {"vad", "diarization"} else ""
            described = (describe(each, suggests=number < PROBLEMS_SHOWN) for number, each in enumerate(error.errors()))
            problems += [(prefix + key, reason) for key, reason in described]
    if "model" in changes and not (isinstance(changes["model"], str) and changes["model"]):
        problems.append(("model", "must be the name of a model"))
    problems += sections["transcription"].unfit(config.engine, config.decoding)
    problems += sections["output"].unfit()
    return Sections(**sections), problems


def _with(section: Section, wanted: dict[str, Any]) -> Section:
    return type(section).model_validate(dict(section) | wanted)


def problems(config: Config, profiles: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield what is wrong with each profile as if it were the only one: its glob and key, and the reason."""
    for glob, changes in profiles.items():
        if not glob or glob.startswith(("/", "./")) or ".." in glob.split("/"):
            yield (glob, ""), "must be a path relative to the inbox, such as french/**"
        yield from (((glob, key), reason) for key, reason in changed(config, changes)[1])


def models(config: Config) -> tuple[str, ...]:
    """List the models that a job may ask for; that of the configuration comes first."""
    return tuple(
        dict.fromkeys([config.model, *(each["model"] for each in config.profiles.values() if "model" in each)])
    )


def wants_diarization(config: Config) -> bool:
    """Whether the configuration or one of its profiles turns diarization on; a ticket may do so too."""
    return config.diarization.enabled or any(
        each.get("diarization.enabled") is True for each in config.profiles.values()
    )


def wants_transcript_mail(config: Config) -> bool:
    """Whether the configuration or one of its profiles names somebody who gets transcripts by mail."""
    return bool(config.output.mail_transcript_to) or any(
        each.get("mail_transcript_to") for each in config.profiles.values()
    )


def resolve(config: Config, name: str, tickets: Iterable[Ticket] = ()) -> JobSpec:
    """Make the job spec of the recording of this name, a path relative to the inbox.

    Raises:
        InputError: `bad_ticket`, with every line and key, or `bad_options` if matching profiles contradict each other.
    """
    profiles = [glob for glob in config.profiles if matches(glob, name)]
    changes: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for glob in profiles:
        changes |= config.profiles[glob]
        origins |= dict.fromkeys(config.profiles[glob], f"profile {printable(glob)}")
    sections, wrong = changed(config, changes)
    if wrong:
        reasons = "; ".join(f"{key}: {reason}" for key, reason in wrong)
        message = f"the profiles {', '.join(profiles)} contradict each other: {reasons}"
        raise InputError(
            message,
            hint="correct the configuration, then move the recording from failed/ back into the inbox",
            code="bad_options",
            stage="uploading",
        )
    followed = []
    for ticket in tickets:
        changes |= ticket.values
        sections, wrong = changed(config, changes)
        _refuse(config, ticket, wrong)
        followed.append(ticket.name)
        for key in ticket.values:
            where = f", {ticket.positions[key]}" if key in ticket.positions else ""
            origins[key] = f"ticket {printable(ticket.name)}{where}"
    return JobSpec(
        model=changes.get("model", config.model),
        transcribe=_transcribe(sections, config),
        output=sections.output,
        media=sections.media,
        vad=sections.vad,
        diarization=sections.diarization,
        quality=config.quality,
        profile=", ".join(profiles) or None,
        tickets=tuple(followed),
        changes=changes,
        origins=origins,
    )


def _refuse(config: Config, ticket: Ticket, wrong: list[tuple[str, str]]) -> None:
    """Raise an error that lists everything that is wrong with a ticket, if anything is."""
    forbidden = {
        key: "may not be set by a ticket (tickets.allow)"
        for key in ticket.values
        if key not in config.tickets.allow and (key in SETTABLE or key == "model")
    }
    model = ticket.values.get("model")
    if "model" not in forbidden and isinstance(model, str) and model not in models(config):
        wrong = [*wrong, ("model", f"must be one of {', '.join(models(config))}")]
    found = [*forbidden.items(), *((key, reason) for key, reason in wrong if key not in forbidden)]
    placed = sorted((_position(ticket, key), f"{printable(key[:100])}: {reason}") for key, reason in found)
    reasons = [*ticket.problems, *(f"{where}: {text}" if any(where) else text for where, text in placed)]
    if reasons:
        shown = "; ".join(reasons[:PROBLEMS_SHOWN]) + ("; ..." if len(reasons) > PROBLEMS_SHOWN else "")
        usual = "correct the ticket, then move the recording, and its ticket with it, from failed/ back into the inbox"
        hint = ticket.hint or usual
        raise InputError(f"ticket {printable(ticket.name)}: {shown}", hint=hint, code="bad_ticket", stage="uploading")


def _position(ticket: Ticket, key: str) -> Position:
    outer = ticket.positions.get(key.rpartition(".")[0], Position(0, 0))  # `formats.2` is on the line of `formats`
    return ticket.positions.get(key, outer)


def _transcribe(sections: Sections, config: Config) -> TranscribeOptions:
    """The options for the engine: the vocabulary becomes hotwords or part of the prompt; whether words get times is decided."""
    asked, changes = sections.transcription, dict[str, Any](vocabulary=())
    names = ", ".join(asked.vocabulary)
    if names and config.engine == "faster-whisper":
        changes["hotwords"] = ", ".join(filter(None, (asked.hotwords, names)))
    elif names:
        changes["initial_prompt"] = " ".join(filter(None, (f"{names}.", asked.initial_prompt)))
        changes["carry_initial_prompt"] = True
    output = sections.output
    if output.max_line_width or output.max_words_per_line or output.highlight_words:
        changes["word_timestamps"] = True
    elif asked.word_timestamps is None:
        are_cheap = ENGINES[config.engine].words_are_cheap and config.decoding == "batched"
        # Attention goes back and forth in a translation, so its words have no times of their own.
        changes["word_timestamps"] = are_cheap and asked.task == "transcribe"
    return asked.evolve(**changes)
