"""The keys and values of the windows being decoded, as a step reads them."""

from types import SimpleNamespace

import pytest
import torch

from whisperd.engine.whisper_batched.text_decoder import Cache

LAYERS, HEADS, SIZE, CONTEXT = 2, 2, 4, 48


def cross(features, into):
    """Stands in for the network: keys and values are what the features of a window are."""
    for window, one in enumerate(features):
        for pair in into:
            for kept in pair:
                kept[window, :, : len(one)] = one


@pytest.fixture
def cache():
    network = SimpleNamespace(
        layers=[None] * LAYERS, heads=HEADS, size=SIZE, context=CONTEXT, cross=cross,
        cache_dtype=torch.float32, device=torch.device("cpu"), aligned={1: [0, 1]},
    )  # fmt: skip
    return Cache(network, capacity=4, group=1)


def join(cache, *windows):
    """Windows, each as the value of all its keys and values, and its frames."""
    found = cache.attend_to([torch.full((frames, SIZE), value) for value, frames in windows])
    for value, _ in windows:
        own = torch.full((HEADS, 1, SIZE), value)
        cache.join([(own, own)] * LAYERS, tokens=1)
    return found


def lengths(cache):
    """Of each window in use, the frames that a step may attend to."""
    (frames,) = {kept.shape[-2] for pair in cache.cross_now() for kept in pair}
    if cache.cross_mask is None:
        return [frames] * cache.slots
    return (cache.cross_mask[:, 0, 0] == 0).sum(-1).tolist()


def held(cache):
    """Of each window in use, the value that all its frames have."""
    values = []
    for slot, frames in enumerate(lengths(cache)):
        found = {float(x) for pair in cache.cross_now() for kept in pair for x in kept[slot, :, :frames].unique()}
        assert len(found) == 1
        values.append(found.pop())
    return values


def test_windows_of_any_lengths_keep_what_is_theirs(cache):
    """Longer ones that join later, and ones that leave, change nothing for the others."""
    for window in ((1.0, 100), (2.0, 700), (3.0, 250), (4.0, 1500)):
        join(cache, window)

    assert lengths(cache) == [100, 700, 250, 1500]
    assert held(cache) == [1.0, 2.0, 3.0, 4.0]

    cache.leave(1, tokens=1)

    assert lengths(cache) == [100, 1500, 250]
    assert held(cache) == [1.0, 4.0, 3.0]


def test_windows_that_join_together_are_attended_to_within_their_ends(cache):
    """The first pass over their tokens reads the slots they are about to take, with what stands there from others."""
    join(cache, (1.0, 300), (9.0, 500), (9.0, 500))
    cache.leave(2, tokens=1)
    cache.leave(1, tokens=1)

    pairs, mask = join(cache, (2.0, 100), (3.0, 400))

    within = (mask[:, 0, 0] == 0).sum(-1).tolist()
    assert within == [100, 400]
    for kept in (kept for pair in pairs for kept in pair):
        assert kept.shape == (2, HEADS, 500, SIZE)
        assert [kept[n, :, :frames].unique().tolist() for n, frames in enumerate(within)] == [[2.0], [3.0]]
    assert lengths(cache) == [300, 100, 400]
    assert held(cache) == [1.0, 2.0, 3.0]


def test_what_a_step_reads_lies_without_gaps(cache):
    """Else each product copies it first; and short windows are not read as if they were long."""
    join(cache, (1.0, 400), (2.0, 420))

    assert all(kept.is_contiguous() for pair in cache.cross_now() for kept in pair)
    assert cache.cross_now()[0][0].shape == (2, HEADS, 500, SIZE)


def test_rows_keep_their_tokens_as_room_for_them_comes_and_goes(cache):
    """Room is for the longest row in use, whoever has left; nobody's keys and values change by it."""
    join(cache, (1.0, 100), (2.0, 100))
    for places in (1, 33, 8):
        pairs = cache.own_now(places)

        for kept in (kept for pair in pairs for kept in pair):
            assert kept.is_contiguous()
            assert kept.shape == (2, HEADS, min(64 if places > 32 else 32, CONTEXT), SIZE)
            assert kept[:, :, 0].unique(dim=1).flatten(1).unique(dim=1).tolist() == [[1.0], [2.0]]

    cache.leave(0, tokens=1)

    assert [float(kept[:, :, 0].unique()) for pair in cache.own_now(1) for kept in pair] == [2.0] * 2 * LAYERS


def test_room_for_long_windows_goes_when_nobody_needs_it(cache):
    """A short window that comes after all others have left is read as a short one."""
    join(cache, (1.0, 1500))
    cache.leave(0, tokens=1)
    join(cache, (2.0, 250))

    assert cache.cross_mask is None
    assert cache.cross_now()[0][0].shape == (1, HEADS, 250, SIZE)
    assert held(cache) == [2.0]


def test_the_queries_of_a_window_stay_its_own(cache):
    """As room comes and goes and windows leave; only heads that follow the audio are kept."""
    join(cache, (1.0, 100), (2.0, 200))
    cache.own_now(2)
    for slot, value in enumerate((1.0, 2.0)):
        cache.queries[1][slot, :, 1] = value
    cache.own_now(40)
    cache.leave(0, tokens=2)

    ([queries], [keys]) = cache.watched(0, 1, 1)

    assert list(cache.queries) == [1]
    assert queries.shape == (1, 2, 1, SIZE)
    assert keys.shape == (2, 200, SIZE)
    assert queries.unique().tolist() == keys.unique().tolist() == [2.0]
