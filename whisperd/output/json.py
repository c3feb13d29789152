"""The format json: everything that the engine said about each segment, with the fields of the `whisper` command.

Differences from openai-whisper 20250625: the file is not escaped to ASCII; NaN and infinity, which JSON does not have, are
null; either every segment has `words` or none has; where channels are speakers, each segment has a field `speaker`.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from whisperd.output.text import has_speakers, has_words

if TYPE_CHECKING:
    from whisperd.core.options import OutputOptions
    from whisperd.core.transcript import About, Transcript, Word


def write(transcript: Transcript, _options: OutputOptions, _about: About) -> str:
    """Return the text of the file."""
    with_words, with_speakers = has_words(transcript), has_speakers(transcript)
    segments = [
        {
            "id": index,
            "seek": segment.seek,
            "start": _finite(segment.start),
            "end": _finite(segment.end),
            "text": segment.text,
            "tokens": segment.tokens,
            "temperature": _finite(segment.temperature),
            "avg_logprob": _finite(segment.avg_logprob),
            "compression_ratio": _finite(segment.compression_ratio),
            "no_speech_prob": _finite(segment.no_speech_prob),
            **({"speaker": segment.speaker} if with_speakers else {}),
            **({"words": [_word(word) for word in segment.words or ()]} if with_words else {}),
        }
        for index, segment in enumerate(transcript.segments)
    ]
    result = {"text": transcript.text, "segments": segments, "language": transcript.language}
    return json.dumps(result, ensure_ascii=False, allow_nan=False)


def _word(word: Word) -> dict[str, str | float | None]:
    return {
        "word": word.text,
        "start": _finite(word.start),
        "end": _finite(word.end),
        "probability": _finite(word.probability),
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
