"""Resolves the configuration, the profiles that match a recording and its tickets into one `JobSpec`.

The later source wins, key by key, as in .gitattributes: the configuration, each profile that matches in the order of the
file, the tickets of the folders from the inbox downwards, and the recording's own ticket.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from whisperd.core.display import printable
from whisperd.core.errors import InputError
from whisperd.core.options import JobSpec, MediaOptions, OutputOptions, TranscribeOptions, VadOptions
from whisperd.settings.sections import SETTABLE

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


def describe(error: Any) -> tuple[str, str]:
    """Turn one of pydantic's errors into a key and a reason for people."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return key, "unknown key"
    message = error["msg"].removeprefix("Value error, ")
    given = "" if isinstance(error["input"], (dict, BaseModel)) else f" (given: {_short(error['input'])})"
    return key, f"{message[0].lower()}{message[1:]}{given}"


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


def changed(config: Config, changes: Mapping[str, Any]) -> tuple[Sections, list[tuple[str, str]]]:
    """Apply changes to the sections; return them, and key and reason of every change that is wrong."""
    sections: dict[str, Any] = {name: getattr(config, name) for name in ("transcription", "output", "media", "vad")}
    problems = [(key, "unknown key") for key in changes if key != "model" and key not in SETTABLE]
    for name, section in sections.items():
        wanted = {field: changes[key] for key, (where, field) in SETTABLE.items() if where == name and key in changes}
        try:
            if wanted:
                sections[name] = _with(section, wanted)
        except ValidationError as error:
            prefix = "vad." if name == "vad" else ""
            problems += [(prefix + key, reason) for key, reason in map(describe, error.errors())]
    if "model" in changes and not (isinstance(changes["model"], str) and changes["model"]):
        problems.append(("model", "must be the name of a model"))
    problems += sections["transcription"].unfit(config.engine, config.decoding)
    return Sections(**sections), problems


def _with(section: Section, wanted: dict[str, Any]) -> Section:
    return type(section).model_validate(dict(section) | wanted)


def problems(config: Config, profiles: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield what is wrong with each profile, with its dotted key, as if it were the only one."""
    for glob, changes in profiles.items():
        if not glob or glob.startswith(("/", "./")) or ".." in glob.split("/"):
            yield f"profiles.{glob}: must be a path relative to the inbox, such as french/**"
        yield from (f"profiles.{glob}.{key}: {reason}" for key, reason in changed(config, changes)[1])


def models(config: Config) -> tuple[str, ...]:
    """List the models that a job may ask for; that of the configuration comes first."""
    return tuple(
        dict.fromkeys([config.model, *(each["model"] for each in config.profiles.values() if "model" in each)])
    )


def resolve(config: Config, name: str, tickets: Iterable[Ticket] = ()) -> JobSpec:
    """Make the job spec of the recording of this name, a path relative to the inbox.

    Raises:
        InputError: `bad_ticket`, with every line and key, or `bad_options` if matching profiles contradict each other.
    """
    profiles = [glob for glob in config.profiles if matches(glob, name)]
    changes: dict[str, Any] = {}
    for glob in profiles:
        changes |= config.profiles[glob]
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
    return JobSpec(
        model=changes.get("model", config.model),
        transcribe=_transcribe(sections, config.engine),
        output=sections.output,
        media=sections.media,
        vad=sections.vad,
        profile=", ".join(profiles) or None,
        tickets=tuple(followed),
        changes=changes,
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
    lines = [(_line(ticket, key), f"{printable(key[:100])}: {reason}") for key, reason in found]
    reasons = [*ticket.problems, *(f"{where}{text}" for where, text in sorted(lines))]
    if reasons:
        shown = "; ".join(reasons[:PROBLEMS_SHOWN]) + ("; ..." if len(reasons) > PROBLEMS_SHOWN else "")
        usual = "correct the ticket, then move the recording, and its ticket with it, from failed/ back into the inbox"
        hint = ticket.hint or usual
        raise InputError(f"ticket {printable(ticket.name)}: {shown}", hint=hint, code="bad_ticket", stage="uploading")


def _line(ticket: Ticket, key: str) -> str:
    line = ticket.lines.get(key) or ticket.lines.get(key.rpartition(".")[0])  # `formats.2` is on the line of `formats`
    return f"line {line}: " if line else ""


def _transcribe(sections: Sections, engine: str) -> TranscribeOptions:
    """The options for the engine: the vocabulary becomes hotwords or part of the prompt, and subtitles turn on word times."""
    asked, changes = sections.transcription, dict[str, Any](vocabulary=())
    names = ", ".join(asked.vocabulary)
    if names and engine == "faster-whisper":
        changes["hotwords"] = ", ".join(filter(None, (asked.hotwords, names)))
    elif names:
        changes["initial_prompt"] = " ".join(filter(None, (f"{names}.", asked.initial_prompt)))
        changes["carry_initial_prompt"] = True
    output = sections.output
    if output.max_line_width or output.max_words_per_line or output.highlight_words:
        changes["word_timestamps"] = True
    return asked.evolve(**changes)
