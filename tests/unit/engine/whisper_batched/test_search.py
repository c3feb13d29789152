"""Choosing tokens, ranking what came of it, and seeing that a row repeats itself."""

import pytest
import torch
from whisper.decoding import MaximumLikelihoodRanker
from whisper.tokenizer import get_tokenizer

from whisperd.engine.whisper_batched.batch import noise_for
from whisperd.engine.whisper_batched.quality import is_loop
from whisperd.engine.whisper_batched.search import Candidate, Sampler, SearchState, best_of

CPU = torch.device("cpu")
EOT = 4


@pytest.mark.parametrize("penalty", [None, 0.0, 0.6, 1.0])
def test_the_best_candidate_is_that_of_the_ranker(penalty):
    """Per token, or by the length penalty, as `MaximumLikelihoodRanker`."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 40, (50, 5), generator=generator).tolist()
    sums = (-20 * torch.rand(50, 5, generator=generator)).tolist()

    ranked = MaximumLikelihoodRanker(penalty).rank([[[0] * n for n in row] for row in lengths], sums)
    chosen = [
        best_of([Candidate((0,) * n, score) for n, score in zip(*row, strict=True)], penalty)
        for row in zip(lengths, sums, strict=True)
    ]

    assert [(len(one.tokens), one.sum_logprob) for one in chosen] == [
        (lengths[row][best], sums[row][best]) for row, best in enumerate(ranked)
    ]


def test_nothing_said_can_be_ranked():
    """An empty sequence does not divide by zero, as openai-whisper's ranker would."""
    assert best_of([Candidate((), -3.0), Candidate((1,), -2.0)], None).tokens == (1,)


def test_samples_follow_the_distribution():
    """At a temperature, tokens come as often as the distribution says, and a forbidden one never."""
    windows = 4000
    state = SearchState(windows, 1, 3, CPU)
    sampler = Sampler(state, EOT)
    for slot in range(windows):
        sampler.join(slot, [1], 0.5, noise_for(slot, 1, 3))
    logits = torch.tensor([-torch.inf, 0.5, 0.0, 1.0, -torch.inf]).expand(windows, 5)

    sampler.advance(windows, logits.clone())

    counted = torch.bincount(state.tokens[:, 0, 1], minlength=5) / windows
    expected = torch.softmax(logits[0] / 0.5, -1)
    assert torch.allclose(counted, expected, atol=0.03)
    assert counted[[0, 4]].tolist() == [0, 0]


def tokens_of(text):
    return get_tokenizer(multilingual=True, language="en").encode(text)


LINE = tokens_of(" Thank you very much.")
STAMPS = [50364 + 50 * n for n in range(30)]
STORY = tokens_of(
    " The quick brown fox jumps over the lazy dog while seven wizards quietly boil some very jagged old xylophones in a"
    " great black cauldron near the frozen river, and nobody in the village has the slightest idea why they do it."
)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (STORY, False),
        (LINE * 3, False),
        (LINE * 12, True),
        ([token for n in range(12) for token in (STAMPS[n], *LINE, STAMPS[n + 1])], True),
        (STORY + LINE * 20, True),
        (tokens_of(" no") * 12, False),
        (tokens_of(" no") * 60, True),
        ([], False),
    ],
    ids=["a story", "said thrice", "a line", "a line with timestamps", "later on", "no, no", "no for ever", "nothing"],
)
def test_a_loop_is_seen(tokens, expected):
    """One line over and over is a loop, whatever its timestamps; people who repeat themselves are not."""
    assert is_loop(tokens, get_tokenizer(multilingual=True, language="en"), 2.4) is expected
