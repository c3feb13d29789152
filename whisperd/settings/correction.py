"""Reads a correction from the values of a ticket or a command line, and resolves the options that it is rendered with."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from whisperd.core.correction import KEY, Correction, SegmentChange
from whisperd.core.display import printable
from whisperd.core.errors import CorrectionRefused
from whisperd.core.options import CHANNELS_MAX, FORMATS, Label, OutputOptions
from whisperd.settings.profiles import changed, matches
from whisperd.settings.sections import SETTABLE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from whisperd.settings.config import Config

OPTIONS = OutputOptions.model_fields.keys() - {"formats", "replacements", "partial"}
OF_PAGE = ("transcript", "recording", "segments", "new_speakers")  # keys that the transcript page writes
KEYS = (KEY, "speakers", "replacements", "formats", *OF_PAGE, *sorted(OPTIONS))
GRANTED_BY = {  # by which key of tickets.allow others may be used; None: always
    KEY: None, "transcript": None, "recording": None, "segments": "replacements", "new_speakers": "speakers"
}  # fmt: skip
TEXT_MAX = 10_000  # characters of a segment
PROBLEMS_SHOWN = 10
SPEAKERS_MAX = 16 * CHANNELS_MAX
_SPEAKERS = TypeAdapter(dict[Label, Label])
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_FILE_NAME = re.compile(r"(?!\.{1,2}$)[^/\x00]{1,255}")


class ChangeFields(BaseModel):
    """One entry of `segments`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[0-9]{1,7}(-[0-9]{1,7})?$")]
    text: Annotated[str, Field(max_length=TEXT_MAX, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")] | None = None
    speaker: Label | None = None

    def value(self) -> SegmentChange:
        """The change that it asks for."""
        first, _, last = self.id.partition("-")
        return SegmentChange(int(first), int(last or first), self.text, self.speaker)


_RULES = {
    "id": "must be the number of a segment, from 0, or of several, as 4-5",
    "text": f"must be a text of at most {TEXT_MAX:,} characters without line breaks",
    "speaker": "a name has 1 to 100 characters, and no line breaks",
}
_CHANGES = TypeAdapter(tuple[ChangeFields, ...])
_NAMES = TypeAdapter(tuple[Label, ...])


def parse(config: Config, values: Mapping[str, Any], *, by: str, allowed: Collection[str] | None = None) -> Correction:
    """Make a correction of the values of a ticket.

    Args:
        config: by which formats, replacements and other options are checked.
        values: by key.
        by: who asks.
        allowed: the keys that may be used; None: all.

    Raises:
        CorrectionRefused: with everything that is wrong.
    """
    problems = [*_problems(config, values)]
    if allowed is not None:
        unknown = {key for key, _ in problems}
        problems += [
            (key, "may not be set by a ticket (tickets.allow)")
            for key in values
            if key not in unknown and (grant := GRANTED_BY.get(key, key)) is not None and grant not in allowed
        ]
    if problems:
        shown = "; ".join(f"{printable(key[:100])}: {reason}" for key, reason in problems[:PROBLEMS_SHOWN])
        raise CorrectionRefused(shown, hint="correct it, and nothing else")
    digest = values.get(KEY, True)
    return Correction(
        speakers=dict(values.get("speakers", {})),
        replacements=dict(values.get("replacements", {})),
        formats=tuple(values.get("formats", ())),
        options={key: values[key] for key in values if key in OPTIONS},
        digest="" if digest is True else digest.lower(),
        by=by,
        transcript=str(values.get("transcript", "")).removeprefix("sha256:").lower(),
        segments=tuple(each.value() for each in _CHANGES.validate_python(values.get("segments", ()))),
        new_speakers=tuple(values.get("new_speakers", ())),
    )


def recording_named(values: Mapping[str, Any]) -> str:
    """The file name of the recording that a correction states; empty if it states none.

    Raises:
        CorrectionRefused: it is no file name.
    """
    named = values.get("recording", "")
    if "recording" in values and not (isinstance(named, str) and _FILE_NAME.fullmatch(named)):
        raise CorrectionRefused("recording: must be the name of a file, without folders")
    return str(named)


def _problems(config: Config, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in values:
        if key not in KEYS:
            is_option = key in SETTABLE or key == "model"
            remedy = "needs the model: use `whisperd retry --done`" if is_option else f"unknown key; {', '.join(KEYS)}"
            yield key, remedy
    digest = values.get(KEY, True)
    if digest is not True and not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
        yield KEY, "must be true, or the SHA-256 of the recording or of its json"
    speakers = values.get("speakers", {})
    if not isinstance(speakers, dict) or len(speakers) > SPEAKERS_MAX:
        yield "speakers", "must name new names by old ones, as {Speaker 1: Anna}"
    else:
        try:
            _SPEAKERS.validate_python(speakers, strict=True)
        except ValidationError:
            yield "speakers", "a name has 1 to 100 characters, and no line breaks"
    yield from _page_problems(values)
    wanted = {key: values[key] for key in values if key in OPTIONS | {"replacements", "formats"}}
    yield from changed(config, wanted)[1]


def _page_problems(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with the keys that a transcript page writes, as far as it shows without the transcript."""
    digest = values.get("transcript")
    if digest is not None and not (isinstance(digest, str) and _SHA256.fullmatch(digest.removeprefix("sha256:"))):
        yield "transcript", "must be sha256: and the SHA-256 of the json"
    if digest is None and "segments" in values:
        yield "segments", "need the key transcript: the SHA-256 of the json to which they belong"
    try:
        _NAMES.validate_python(values.get("new_speakers", ()), strict=True)
    except ValidationError:
        yield "new_speakers", "must be a list of names of 1 to 100 characters"
    try:
        changes = [each.value() for each in _CHANGES.validate_python(values.get("segments", ()))]
    except ValidationError as error:
        for found in error.errors(include_url=False, include_context=False, include_input=False)[:PROBLEMS_SHOWN]:
            where = ".".join(map(str, ("segments", *found["loc"])))
            rule = _RULES.get(
                str(found["loc"][-1]) if found["loc"] else "", "must be a list of mappings, as {id: 3, text: ...}"
            )
            yield where, f"unknown key; {', '.join(_RULES)}" if found["type"] == "extra_forbidden" else rule
        return
    for number, (before, change) in enumerate(itertools.pairwise([SegmentChange(-1, -1), *changes])):
        where = f"segments.{number}.id"
        is_part = (change.first, change.last) == (before.first, before.last)
        if change.last < change.first:
            yield where, "ends before it begins"
        elif is_part and not (before.text and change.text):
            yield where, "comes more than once: each part of a split needs a text"
        elif not is_part and change.first <= before.last:
            yield where, "the segments must be in order, and each in one place"


def output_options(
    config: Config, place: str, recorded: Iterable[Mapping[str, Any]], kinds: Iterable[str]
) -> OutputOptions:
    """Resolve how the formats of a completed job are rendered now.

    The later source wins, key by key: the configuration, the profiles that match, and what was recorded for this job. A recorded
    value that this release does not accept is left out.

    Args:
        config: as it is now.
        place: of the completed job.
        recorded: the options of its tickets, then those of its corrections, the latest last.
        kinds: the formats that are rendered.
    """
    profiles = [changes for glob, changes in config.profiles.items() if matches(glob, place)]
    options: dict[str, Any] = {}
    for source in (*profiles, *recorded):
        options |= {
            key: tuple(each) if isinstance(each, list) else each
            for key, each in source.items()
            if key in OPTIONS | {"replacements"}
        }
    refused = {key.partition(".")[0] for key, _ in changed(config, options)[1]}
    output = changed(config, {key: each for key, each in options.items() if key not in refused})[0].output
    return output.evolve(formats=tuple(kind for kind in FORMATS if kind in set(kinds)), partial=False)
