"""When each word was said, from attention."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from whisper.timing import dtw_cpu, median_filter
from whisper.tokenizer import get_tokenizer

from whisperd.engine.whisper_batched.segments import cut_segments
from whisperd.engine.whisper_batched.words import Attention, add_words, first_frames, median_of_seven, token_starts

TOKENIZER = get_tokenizer(multilingual=True, language="en", task="transcribe")


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 8, 1500])
def test_the_median_is_that_of_openai_whisper(frames):
    """Number for number, also at the borders and where numbers are equal."""
    x = torch.randint(0, 9, (5, frames), generator=torch.Generator().manual_seed(frames)).float()

    expected = median_filter(x[None], 7)[0]

    assert torch.equal(median_of_seven(x), expected)


@pytest.mark.parametrize(("rows", "frames"), [(1, 1), (1, 9), (9, 1), (2, 2), (7, 40), (40, 7), (60, 200)])
def test_the_cheapest_way_is_that_of_openai_whisper(rows, frames):
    """The first frame of each row is where `whisper.timing.dtw` jumps to the row."""
    costs = np.random.default_rng(rows * frames).normal(size=(rows, frames))

    text, times = dtw_cpu(costs)

    jumps = np.pad(np.diff(text), (1, 0), constant_values=1).astype(bool)
    assert first_frames(costs).tolist() == times[jumps].tolist()


def attention(looks_at, frames=100, tokens=None):
    """One head, in which each token looks at the frames from that in `looks_at` to the next one's."""
    size = 128
    queries, keys = torch.zeros(1, tokens or len(looks_at), size), torch.zeros(1, frames, size)
    for place, (frame, end) in enumerate(pairwise([*looks_at, frames])):
        queries[0, place, place] = 12.0
        keys[0, frame:end, place] = 1.0
    return Attention([queries], [keys], [0.5] * len(looks_at))


def test_a_token_begins_where_its_query_begins_to_look():
    """The frames are 20 ms long; a token that is not asked for is passed over."""
    starts = token_starts(attention([0, 20, 50, 80]), [1, 2, 3], 100)

    assert starts.tolist() == pytest.approx([0.0, 1.0, 1.6], abs=0.09)


def test_a_row_that_was_cut_off_ends_with_its_window():
    """Nothing was asked for after its last token."""
    starts = token_starts(attention([0, 50]), [0, 1, 2], 80)

    assert starts[-1] == 1.6


@pytest.mark.parametrize("looks_at", [[0, 0], [0]])
def test_one_frame_is_enough(looks_at):
    """Heads that differ in nothing are no reason to divide by zero."""
    starts = token_starts(attention(looks_at, frames=1), list(range(len(looks_at))), 1)

    assert starts.tolist() == [0.0] * len(looks_at)


def test_words_have_the_times_and_probabilities_of_their_tokens():
    """Of a window in which two segments are kept, and an empty one is not."""
    begin, text = TOKENIZER.timestamp_begin, TOKENIZER.encode(" One two three")
    tokens = [begin, *text[:2], begin + 24, begin + 24, begin + 24, begin + 28, text[2], begin + 80]
    cut = cut_segments(tokens, TOKENIZER, 2.0)
    looks_at = [0, 1, 12, 24, 25, 26, 27, 28, 79, 90]

    segments = add_words(cut, attention(looks_at), TOKENIZER, 2.0)

    words = [[(word.text, word.start, word.probability) for word in segment.words] for segment in segments]
    assert [[text for text, *_ in each] for each in words] == [[" One", " two"], [" three"]]
    assert [start for each in words for _, start, _ in each] == pytest.approx([0.0, 0.24, 0.56], abs=0.09)
    assert {chance for each in words for *_, chance in each} == {0.5}
