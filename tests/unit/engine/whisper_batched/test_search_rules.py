"""The rules over a batch are openai-whisper's logit filters, row by row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_model import tiny_model
from whisper.decoding import ApplyTimestampRules, DecodingOptions, DecodingTask, SuppressBlank, SuppressTokens
from whisper.tokenizer import get_tokenizer

from whisperd.core.errors import InputError
from whisperd.engine.whisper_batched.search import Rules, suppressed_tokens

CPU = torch.device("cpu")
TOKENIZER = get_tokenizer(multilingual=True, num_languages=99, language="en", task="transcribe")
VOCABULARY = 51865

text = st.integers(0, TOKENIZER.eot - 1)
stamp = st.integers(TOKENIZER.timestamp_begin, VOCABULARY - 1)
row = st.tuples(
    st.lists(text, min_size=1, max_size=5),  # initial tokens
    st.lists(st.one_of(text, stamp, st.just(TOKENIZER.eot)), max_size=8),  # sampled ones
)


def by_whisper(logits, initial, sampled):
    """The filters as `DecodingTask` puts them together, for one row."""
    tokens = torch.tensor([[*initial, *sampled]])
    filters = (
        SuppressBlank(TOKENIZER, len(initial)),
        SuppressTokens(sorted({*TOKENIZER.non_speech_tokens, *never()})),
        ApplyTimestampRules(TOKENIZER, len(initial), 50),
    )
    for each in filters:
        each.apply(logits, tokens)
    return logits


def never():
    t = TOKENIZER
    return (t.transcribe, t.translate, t.sot, t.sot_prev, t.sot_lm, t.no_speech)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(row, min_size=1, max_size=4), seed=st.integers(0, 2**32), lean=st.floats(-8, 8))
def test_rules_are_the_filters_of_openai_whisper(rows, seed, lean):
    """For any logits and any history the same tokens stay possible, whatever the other rows are."""
    logits = torch.randn(len(rows), VOCABULARY, generator=torch.Generator().manual_seed(seed))
    logits[:, TOKENIZER.timestamp_begin :] += lean  # so that timestamps win in some rows and lose in others
    expected = torch.cat([by_whisper(logits[[n]].clone(), *each) for n, each in enumerate(rows)])
    places = max(len(initial) + len(sampled) for initial, sampled in rows) + 2
    tokens = torch.full((len(rows), places), TOKENIZER.timestamp_begin + 7)  # what stands behind a row must not count
    for n, (initial, sampled) in enumerate(rows):
        tokens[n, : len(initial) + len(sampled)] = torch.tensor([*initial, *sampled])
    lengths = torch.tensor([len(initial) + len(sampled) for initial, sampled in rows])
    begins = torch.tensor([len(initial) for initial, _ in rows])

    Rules(TOKENIZER, suppressed_tokens(TOKENIZER, "-1"), 1500, CPU).apply(logits, tokens, lengths, begins)

    assert torch.equal(logits, expected)


@pytest.mark.parametrize("wanted", ["", "-1", "11", "-1,11,13"], ids=["none", "symbols", "one", "symbols and two"])
def test_suppressed_tokens_are_those_of_openai_whisper(wanted):
    """The option means what it means there; `<|notimestamps|>` is added, which its timestamp rule suppresses."""
    task = DecodingTask(tiny_model(), DecodingOptions(suppress_tokens=wanted or [], fp16=False, language="en"))

    expected = {*task._get_suppress_tokens(), TOKENIZER.no_timestamps}
    assert set(suppressed_tokens(TOKENIZER, wanted)) == expected


@pytest.mark.parametrize("wanted", ["a,b", "60000", "-2"], ids=["words", "too large", "negative"])
def test_suppressed_tokens_refuse_what_is_no_token(wanted):
    """A wrong list is refused before it can break a batch."""
    with pytest.raises(InputError, match="suppress_tokens"):
        suppressed_tokens(TOKENIZER, wanted)
