"""Small functions that the writers of formats share: text in one line, labels of speakers, times in milliseconds."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whisperd.core.transcript import Transcript

SPEAKER_COLOURS = (
    "ffffff",
    "ffff00",
    "00ffff",
    "66ff66",
    "ff9ecf",
    "ffb366",
)  # of subtitles, after the BBC's guidelines

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029], " ")


def one_line(text: str) -> str:
    """Text in which a space replaces every line break and control character.

    No text can then end a cue, a line or a field, or send commands to a terminal.
    """
    return text.translate(_CONTROLS)


def encodable(text: str) -> str:
    """Text with U+FFFD for each lone surrogate, which UTF-8 cannot hold."""
    return _SURROGATE.sub("\ufffd", text)


def speaker_label(speaker: str | None) -> str:
    """`Speaker 1: `, as it stands before what somebody says; empty where speakers are not told apart."""
    return "" if speaker is None else f"{one_line(speaker)}: "


def has_speakers(transcript: Transcript) -> bool:
    """Whether any segment names its speaker."""
    return any(segment.speaker is not None for segment in transcript.segments)


def has_words(transcript: Transcript) -> bool:
    """Whether any segment has times for its words.

    openai-whisper asks the first segment alone, and raises KeyError where it clears an empty first segment (its pull
    request 2780).
    """
    return any(segment.words for segment in transcript.segments)


def milliseconds(seconds: float) -> int:
    """A time in whole milliseconds; 0 for NaN and infinity."""
    exact = seconds * 1000
    return round(exact) if math.isfinite(exact) else 0
