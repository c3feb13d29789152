"""Renders the formats again from the recorded transcript, with a correction; no model is needed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whisperd.core.display import printable
from whisperd.core.errors import CorrectionRefused
from whisperd.core.replacements import correct
from whisperd.core.transcript import Transcript
from whisperd.output.edits import edit
from whisperd.output.formats import RECORDED, render
from whisperd.output.json import read

if TYPE_CHECKING:
    from whisperd.core.correction import RenderRequest
    from whisperd.core.transcript import About, Replaced

SPEAKERS_NAMED = 20  # in one message


@dataclass(frozen=True, slots=True)
class RenderedAgain:
    """The files by format, and the report of all replacements that are made in them now."""

    files: dict[str, bytes]
    replacements: tuple[Replaced, ...]


def render_again(request: RenderRequest, recorded: bytes) -> RenderedAgain:
    """Render what is asked for.

    The replacements of the configuration come first, then those of the recorded transcript, then those of the correction; of two
    with the same wrong text the later counts. All are made in the words that were recorded, so the outcome is the same however
    often this is done.

    Raises:
        CorrectionRefused: the correction does not fit this transcript, or the file is no transcript.
    """
    correction = request.correction
    if correction.digest and correction.digest not in {request.sha256, hashlib.sha256(recorded).hexdigest()}:
        raise CorrectionRefused(
            "the SHA-256 of the correction is neither that of the recording nor that of its transcript as it is now",
            hint="it is for another recording, or the transcript has changed since: look at it again",
        )
    if correction.transcript and correction.transcript != hashlib.sha256(recorded).hexdigest():
        raise CorrectionRefused(
            "it belongs to another transcript: its SHA-256 is not that of the json as it is now",
            hint="it was made already, is for another recording, or the transcript has changed since: "
            "open the transcript page anew and correct that",
        )
    try:
        transcript, about = read(recorded)
    except ValueError as error:
        raise CorrectionRefused(
            f"{request.file} is not a recorded transcript: {error}", hint="undo what was changed in it by hand"
        ) from error
    earlier = {each.wrong: each.right for each in transcript.replacements}
    replacements = request.output.replacements | earlier | correction.replacements
    renamed = _with_speakers(transcript, correction.speakers)
    edited, origins = edit(renamed, correct(renamed, earlier).segments, correction)
    edited = _with_new(
        edited, {wrong: right for wrong, right in correction.replacements.items() if earlier.get(wrong) != right}
    )
    corrected = correct(edited, replacements)
    options, known = request.output.evolve(replacements={}), _known(request, about)
    document = render(corrected, options.evolve(formats=(RECORDED,)), known)[RECORDED]
    document = _with_unknown(document, recorded, origins)
    known = dataclasses.replace(known, recorded_sha256=hashlib.sha256(document).hexdigest())
    files = render(corrected, options, known) | {RECORDED: document}
    return RenderedAgain(files, corrected.replacements)


def _with_speakers(transcript: Transcript, speakers: dict[str, str]) -> Transcript:
    known = dict.fromkeys(segment.speaker for segment in transcript.segments if segment.speaker is not None)
    if missing := [name for name in speakers if name not in known]:
        there = ", ".join(printable(name) for name in list(known)[:SPEAKERS_NAMED]) or "none is told apart here"
        names = ", ".join(printable(name) for name in missing[:SPEAKERS_NAMED])
        raise CorrectionRefused(f"nobody is called {names} in this transcript (speakers: {there})")
    segments = (
        dataclasses.replace(each, speaker=None if each.speaker is None else speakers.get(each.speaker, each.speaker))
        for each in transcript.segments
    )
    return dataclasses.replace(transcript, segments=tuple(segments))


def _with_new(transcript: Transcript, replacements: dict[str, str]) -> Transcript:
    """Make replacements that were never made before in what a person has written too; others might be made twice there."""
    written = [dataclasses.replace(each, is_edited=False) for each in transcript.segments if each.is_edited]
    if not written or not replacements:
        return transcript
    corrected = iter(correct(Transcript("", tuple(written), ""), replacements).segments)
    segments = tuple(
        dataclasses.replace(next(corrected), is_edited=True, recorded=None) if each.is_edited else each
        for each in transcript.segments
    )
    text = "".join(each.text for each in segments)
    return dataclasses.replace(transcript, segments=segments, text=text)


def _known(request: RenderRequest, recorded: About) -> About:
    """What the recorded transcript says, and the rest from the request: an older transcript says nothing."""
    about = request.about
    return dataclasses.replace(
        recorded,
        title=about.title,
        link=about.link,
        duration_seconds=recorded.duration_seconds or about.duration_seconds,
        made_by=recorded.made_by or about.made_by,
        made_at=recorded.made_at or about.made_at,
        task=recorded.task if recorded.made_by else about.task,
    )


def _with_unknown(rendered: bytes, recorded: bytes, origins: list[int]) -> bytes:
    """Keep the fields of the recorded transcript that this release does not know."""
    new, old = json.loads(rendered), json.loads(recorded)
    ours = {"replacements", "recorded", "edited", "speaker", "words"}
    _keep(new, old, ours)
    for after, origin in zip(new["segments"], origins, strict=True):
        _keep(after, old["segments"][origin], ours)
    return json.dumps(new, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def _keep(new: dict[str, Any], old: dict[str, Any], ours: set[str]) -> None:
    new |= {key: value for key, value in old.items() if key not in new and key not in ours}
