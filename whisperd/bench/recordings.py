"""Finds recordings with reference texts to measure with, and makes one from the sample of the package."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from whisperd.core.errors import WhisperdError
from whisperd.core.options import FORMATS

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = "jfk.ogg"
SAMPLE_TEXT = (
    "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country."
)
SAMPLE_REPEATED = 11  # two minutes
TEXTS = frozenset({"", ".rttm", *(f".{name}" for name in FORMATS)})  # what may lie beside a recording


@dataclass(frozen=True, slots=True)
class ReferenceRecording:
    """A recording and the words that are spoken in it."""

    path: Path
    reference: str
    language: str | None  # by the folder it lies in; None: not known


def find_recordings(directory: Path) -> list[ReferenceRecording]:
    """Find every `x.ogg` (or any other suffix) that has an `x.txt` beside it, at any depth, in the order of their names.

    A folder named by a language code, such as `fr/`, says in which language its texts are to be compared.

    Raises:
        WhisperdError: there is none.
    """
    found = []
    for path in sorted(directory.rglob("*")):
        text = path.with_suffix(".txt")
        if path.suffix.lower() not in TEXTS and path.is_file() and text.is_file():
            folder = path.parent.name if path.parent != directory else ""
            language = folder if re.fullmatch(r"[a-z]{2,3}", folder) else None
            found.append(ReferenceRecording(path, text.read_text("utf-8").strip(), language))
    if not found:
        raise WhisperdError(
            f"no recordings with reference texts in {directory}", hint="each x.ogg needs an x.txt with its words"
        )
    return found


def find_conversations(directory: Path) -> list[Path]:
    """Find every `x.ogg` (or any other suffix) that has an `x.rttm` beside it, which says who speaks when, at any depth."""
    return [
        path
        for path in sorted(directory.rglob("*"))
        if path.suffix.lower() not in TEXTS and path.is_file() and path.with_suffix(".rttm").is_file()
    ]


def make_sample(directory: Path, ffmpeg: Path) -> ReferenceRecording:
    """Repeat the recording that ships with whisperd in one file in `directory`, 121 s long.

    Raises:
        WhisperdError: ffmpeg could not write it.
    """
    target = directory / "sample.wav"
    with resources.as_file(resources.files("whisperd") / "samples" / SAMPLE) as source:
        repeat = ["-stream_loop", str(SAMPLE_REPEATED - 1), "-i", str(source), "-ac", "1", "-ar", "16000", str(target)]
        command = [str(ffmpeg), "-nostdin", "-v", "error", *repeat]
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if ran.returncode:
        raise WhisperdError(f"the sample cannot be made: {ran.stderr.strip()}")
    return ReferenceRecording(target, " ".join([SAMPLE_TEXT] * SAMPLE_REPEATED), "en")
