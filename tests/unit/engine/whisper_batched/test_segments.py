"""Tokens to segments."""

import pytest
from whisper.tokenizer import get_tokenizer

from whisperd.engine.whisper_batched.segments import cut_segments

TOKENIZER = get_tokenizer(multilingual=True, language="en", task="transcribe")


def tokens(*parts):
    """Numbers are seconds, strings are text."""
    found = []
    for part in parts:
        found += TOKENIZER.encode(part) if isinstance(part, str) else [TOKENIZER.timestamp_begin + round(part * 50)]
    return found


@pytest.mark.parametrize(
    ("parts", "truncated", "segments", "covered"),
    [
        ((0.0, " One.", 2.0), False, [(0.0, 2.0, " One.")], 20.0),
        ((0.4, " One.", 2.0, 2.0, " Two.", 5.0), False, [(0.4, 2.0, " One."), (2.0, 5.0, " Two.")], 20.0),
        ((0.0, " One.", 2.0, 2.5, " Two."), False, [(0.0, 2.0, " One."), (2.5, 20.0, " Two.")], 20.0),
        ((0.0, " One.", 2.0, 2.5, " Two."), True, [(0.0, 2.0, " One.")], 2.0),
        ((0.0, " One.", 2.0, 2.0), False, [(0.0, 2.0, " One.")], 2.0),
        ((0.0, " One."), False, [(0.0, 20.0, " One.")], 20.0),
        ((), False, [], 20.0),
        ((0.0, 0.0, " One.", 2.0), False, [(0.0, 2.0, " One.")], 20.0),
    ],
    ids=["one", "two", "open tail", "tail cut off", "nothing behind", "no end", "nothing", "instantaneous"],
)
def test_segments_are_cut_where_timestamps_meet(parts, truncated, segments, covered):
    """As `whisper.transcribe` cuts; a tail is kept unless its row was cut off, and what is not covered is said."""
    cut = cut_segments(tokens(*parts), TOKENIZER, 20.0, truncated=truncated)

    assert [(segment.start, segment.end, segment.text) for segment in cut.segments] == segments
    assert cut.covered_seconds == covered
