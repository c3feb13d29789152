"""A correction: what somebody changes in the transcripts of a completed job; and the request to render them again with it.

The recorded transcript, the json, is what all formats are rendered from, so no model is needed. The request crosses to the
process that renders as ASCII JSON.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from whisperd.core.options import OutputOptions, section_from_json, to_json
from whisperd.core.transcript import About

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "correction"  # in a ticket: true, or the SHA-256 of what is corrected
PAGE_SUFFIX = ".correction"  # `interview.mp3.correction.yaml` is what the transcript page saves for interview.mp3
REQUEST, REPORT, OUTPUTS = "request.json", "report.json", "outputs"  # in the directory of the process that renders

# Browsers number the second file of a name: `(1)`, ` (1)`, `-2`.
_OF_PAGE = re.compile(rf"(.+){re.escape(PAGE_SUFFIX)}[^./]{{0,8}}\.ya?ml", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class SegmentChange:
    """What takes the place of the segments `first` to `last`; several in a row for the same segments are parts of a split.

    Attributes:
        first: index of a segment in the recorded transcript.
        last: likewise; the same as `first` if nothing is joined.
        text: None: as it is; empty: the segments are removed.
        speaker: None: as it is.
    """

    first: int
    last: int
    text: str | None = None
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Correction:
    """What is to be changed.

    Attributes:
        speakers: new names by old ones.
        replacements: right words by wrong ones, in addition to those that were made before.
        formats: what is written besides the formats that exist.
        options: other options of `output`, such as `max_line_width`.
        digest: SHA-256 of the recording, or of its recorded transcript as it is now; empty: whichever there is.
        by: who asks, for the status file.
        transcript: SHA-256 of the recorded transcript as it is now; empty: not stated, and then there are no `segments`.
        segments: in the order of the transcript.
        new_speakers: names that `segments` may use besides those of the transcript.
    """

    speakers: dict[str, str] = field(default_factory=dict)
    replacements: dict[str, str] = field(default_factory=dict)
    formats: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    digest: str = ""
    by: str = ""
    transcript: str = ""
    segments: tuple[SegmentChange, ...] = ()
    new_speakers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """What the process that renders must know.

    Attributes:
        outbox: the directory.
        folders: below the outbox.
        file: the recorded transcript in there.
        output: the formats to be rendered, how subtitles are shaped, and the replacements of the configuration.
        correction: what is changed.
        sha256: of the recording.
        about: what formats show besides words, where the recorded transcript does not say it.
    """

    outbox: str
    folders: tuple[str, ...]
    file: str
    output: OutputOptions
    correction: Correction
    sha256: str
    about: About

    def encode(self) -> bytes:
        """Write the request as ASCII JSON; names that are not UTF-8 survive as surrogate escapes."""
        return json.dumps(self, default=to_json).encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> RenderRequest:
        """Read what `encode` has written."""
        fields = json.loads(data)
        about = fields.pop("about")
        correction = fields.pop("correction")
        correction |= {name: tuple(correction[name]) for name in ("formats", "new_speakers")}
        correction["segments"] = tuple(SegmentChange(**change) for change in correction["segments"])
        return cls(
            folders=tuple(fields.pop("folders")),
            output=section_from_json(OutputOptions, fields.pop("output")),
            correction=Correction(**correction),
            about=About(heights=tuple(about.pop("heights")), **about),
            **fields,
        )


def recording_of(file: str) -> str | None:
    """The name of the recording to which a file of the transcript page belongs by its own name; None: it is not called so."""
    found = _OF_PAGE.fullmatch(file)
    return found[1] if found else None


def is_correction(values: Mapping[str, Any]) -> bool:
    """Whether a ticket corrects a completed job, and so is never a list of options for an upload.

    No ticket for an upload has the key `correction`, or a mapping as `speakers`.
    """
    return KEY in values or isinstance(values.get("speakers"), dict)


def as_ticket(correction: Correction) -> bytes:
    """Write a correction, except that of segments, as a ticket, in JSON, which is YAML too."""
    values: dict[str, Any] = {KEY: correction.digest or True, **correction.options}
    values |= {name: value for name in ("speakers", "replacements", "formats") if (value := getattr(correction, name))}
    return (json.dumps(values, ensure_ascii=False, indent=1) + "\n").encode()
