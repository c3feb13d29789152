"""Choosing tokens, ranking what came of it, and seeing that a row repeats itself."""

import pytest
import torch
from whisper.decoding import MaximumLikelihoodRanker
from whisper.tokenizer import get_tokenizer

from whisperd.engine.whisper_batched.batch import noise_for
from whisperd.engine.whisper_batched.quality import is_loop
from whisperd.engine.whisper_batched.search import BeamSearch, Candidate, Sampler, SearchState, best_of, likeliest

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


@pytest.mark.parametrize("places", [3, 256, 512, 700, 51865])
def test_the_likeliest_is_the_first_of_the_largest(places):
    """Wherever it is: in the first block, in the last one, in what is left behind the blocks, or everywhere."""
    generator = torch.Generator().manual_seed(places)
    logits = torch.randint(0, 50, (2, 60, places), generator=generator).float()
    logits[0, 0, -1], logits[0, 1, 0], logits[0, 2] = 99.0, 99.0, -torch.inf
    logits[1, :, : places // 2] = -torch.inf

    assert torch.equal(likeliest(logits), torch.from_numpy(logits.numpy().argmax(-1)))


def searches():
    """A window beside another, in each kind of search."""
    for group in (1, 3):
        state = SearchState(3, group, 40, CPU)
        yield Sampler(state, EOT) if group == 1 else BeamSearch(state, EOT, group)


@pytest.mark.parametrize("search", list(searches()), ids=["greedy", "beams"])
def test_a_candidate_says_which_row_looked_for_each_token(search):
    """The rows of a beam take each other's places; what each computed before stays where it was computed."""
    generator, initial, slot = torch.Generator().manual_seed(5), [1, 2], 1
    for number in range(2):
        search.join(number, initial, 0.0, None)
    asked = []  # at each step, what each row held when it looked for the next token
    while not bool(search.state.done[slot]) and len(asked) < 30:
        length = int(search.state.lengths[slot])
        logits = torch.randn(2 * search.state.tokens.shape[1], 12, generator=generator)
        logits[:, EOT] += 0.2 * len(asked) - 3
        asked.append([(row[:length], each) for row, each in zip(
            search.state.tokens[slot].tolist(), logits.view(2, -1, 12)[slot].log_softmax(-1).tolist(), strict=True
        )])  # fmt: skip
        search.advance(2, logits)
    search.move(slot, 2)

    candidates = search.candidates(2)

    assert len({one.rows for one in candidates}) == len(candidates) == search.state.tokens.shape[1]
    for one in candidates:
        wanted = [*one.tokens, EOT][: len(one.rows)]
        assert len(one.rows) - len(one.tokens) in {0, 1}
        for step, (row, token) in enumerate(zip(one.rows, wanted, strict=True)):
            before, logprobs = asked[step][row]
            assert before == [*initial, *one.tokens[:step]]
            assert step == len(one.tokens) or logprobs[token] == pytest.approx(one.logprobs[step], abs=1e-5)
        total = sum(asked[step][row][1][token] for step, (row, token) in enumerate(zip(one.rows, wanted, strict=True)))
        assert one.sum_logprob == pytest.approx(total, abs=1e-4)


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
