"""Nothing that is spoken is lost or heard twice, whatever the recording; silero-vad's own code is the oracle."""

from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whisperd.core.options import VadOptions
from whisperd.media.vad import find_speech
from whisperd.media.windows import FRAME_SAMPLES, Region, everything, seconds_outside, windows

RATE = 16_000


@pytest.fixture(scope="module")
def silero():
    """The package, whose import sets torch to one thread."""
    threads = torch.get_num_threads()
    import silero_vad  # noqa: PLC0415

    torch.set_num_threads(threads)
    return silero_vad


@st.composite
def regions_of(draw, longest_seconds=29.0, longest_pause_seconds=40.0):
    """Regions in order, some touching."""
    lengths = st.integers(1, round(longest_seconds * RATE))
    pauses = st.one_of(st.just(0), st.integers(0, round(longest_pause_seconds * RATE)))
    found, at = [], 0
    for pause, length in draw(st.lists(st.tuples(pauses, lengths), max_size=60)):
        found.append(Region(at + pause, at + pause + length))
        at = found[-1].end_sample
    return found


@st.composite
def probabilities_of(draw):
    """Speech and silence in turns, with hesitation in between: a list of floats."""
    values = st.sampled_from([0.0, 0.02, 0.3, 0.349, 0.35, 0.45, 0.5, 0.51, 0.9, 1.0])
    runs = draw(st.lists(st.tuples(values, st.integers(1, 60)), min_size=1, max_size=40))
    return list(chain.from_iterable([value] * count for value, count in runs))


@st.composite
def options_of(draw):
    """Thresholds, and lengths in whole milliseconds."""
    seconds = st.integers(0, 700).map(lambda milliseconds: milliseconds / 1000)
    return VadOptions(
        threshold=draw(st.sampled_from([0.1, 0.35, 0.5, 0.6])),
        min_speech_seconds=draw(seconds),
        min_silence_seconds=draw(seconds),
        speech_pad_seconds=draw(seconds),
    )


def pieces_of(probabilities, size):
    return (np.array(probabilities[at : at + size]) for at in range(0, len(probabilities), size))


def samples_in(regions):
    """Where regions that touch are one: start and end of each."""
    merged = []
    for region in regions:
        if merged and merged[-1][1] == region.start_sample:
            merged[-1][1] = region.end_sample
        else:
            merged.append([region.start_sample, region.end_sample])
    return merged


def seconds(span):
    return (span.end_sample - span.start_sample) / RATE


@given(regions_of(), st.floats(0, 60))
def test_every_region_is_in_exactly_one_window(regions, max_pause_seconds):
    """All speech is decoded once, in order, in at most 29 s at a time, with no long pause inside."""
    found = list(windows(regions, max_pause_seconds=max_pause_seconds))

    pauses = [two.start_sample - one.end_sample for window in found for one, two in pairwise(window.regions)]
    assert list(chain.from_iterable(window.regions for window in found)) == regions
    assert all(seconds(window) <= 29 for window in found)
    assert all(one.end_sample <= two.start_sample for one, two in pairwise(found))
    assert max(pauses, default=0) <= max_pause_seconds * RATE


@given(regions_of())
def test_windows_start_and_end_with_speech(regions):
    """A window's times are those of its regions, to the sample."""
    found = list(windows(regions))

    assert {window.start_sample for window in found} <= {region.start_sample for region in regions}
    assert {window.end_sample for window in found} <= {region.end_sample for region in regions}


@given(regions_of(longest_seconds=2.0, longest_pause_seconds=1.0))
def test_ordinary_talk_leaves_no_scraps(regions):
    """Where pauses are frequent no window is shorter than a third of the longest, but that of a short recording."""
    found = list(windows(regions))

    assert len(found) < 2 or min(map(seconds, found)) >= 29 / 3 - 1


@given(regions_of(longest_seconds=6.0, longest_pause_seconds=5.0), st.integers(0, 59))
def test_what_follows_much_later_changes_nothing(regions, known):
    """A window that is out, is final: the same windows come of any recording that goes on the same way."""
    start = list(windows(regions[:known]))
    whole = list(windows(regions))

    sure = [window for window in start if start[-1].end_sample - window.start_sample > 3 * 29 * RATE]
    assert whole[: len(sure)] == sure


@given(probabilities_of(), options_of(), st.integers(0, FRAME_SAMPLES - 1), st.integers(1, 300))
def test_speech_is_what_silero_says(silero, probabilities, options, missing, size):
    """In pieces of any size, the regions are those that the package finds in all probabilities at once."""
    total = len(probabilities) * FRAME_SAMPLES - missing

    found = find_speech(pieces_of(probabilities, size), total, options, max_seconds=10_000)

    expected = silero.get_speech_timestamps_from_probs(
        probabilities,
        threshold=options.threshold,
        min_speech_duration_ms=options.min_speech_seconds * 1000,
        min_silence_duration_ms=options.min_silence_seconds * 1000,
        speech_pad_ms=options.speech_pad_seconds * 1000,
        audio_length_samples=total,
    )
    assert list(found) == [Region(each["start"], each["end"]) for each in expected]


@given(probabilities_of(), options_of(), st.integers(0, FRAME_SAMPLES - 1), st.integers(1, 300), st.integers(3, 12))
def test_cutting_long_speech_loses_nothing(probabilities, options, missing, size, max_seconds):
    """Cut regions cover the samples of the uncut ones, are in order and within the recording, and fit a window."""
    total = len(probabilities) * FRAME_SAMPLES - missing
    uncut = find_speech(pieces_of(probabilities, size), total, options, max_seconds=10_000)

    found = list(find_speech(pieces_of(probabilities, size), total, options, max_seconds=max_seconds))

    again = list(find_speech(pieces_of(probabilities, len(probabilities)), total, options, max_seconds=max_seconds))
    assert samples_in(found) == samples_in(uncut)
    assert all(0 <= region.start_sample < region.end_sample <= total for region in found)
    assert all(seconds(region) <= max_seconds for region in found)
    assert found == again


@given(st.integers(0, 150 * RATE), st.integers(0, 2**32 - 1), st.sampled_from([3.0, 7.5, 29.0]))
def test_without_voice_detection_every_sample_is_in_one_window(total, seed, max_seconds):
    """Windows touch from the first sample to the last."""
    audio = np.random.default_rng(seed).integers(-(2**15), 2**15, total // 50 + 1, dtype=np.int16).repeat(50)[:total]

    found = list(windows(everything(audio, lambda seconds: None, max_seconds=max_seconds), max_seconds=max_seconds))

    assert [window.start_sample for window in found] == [0, *(window.end_sample for window in found)][: len(found)]
    assert seconds_outside(found, total) == 0
    assert all(seconds(window) <= max_seconds for window in found)
