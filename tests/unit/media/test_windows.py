"""Windows: pure arithmetic from regions to what a model is given at once."""

from itertools import pairwise

import numpy as np
import pytest

from whisperd.media.windows import Region, Window, everything, quietest, seconds_outside, windows

RATE = 16_000


def region(start_seconds, end_seconds):
    return Region(round(start_seconds * RATE), round(end_seconds * RATE))


def spans(found):
    """Start and end of each in seconds."""
    return [(each.start_sample / RATE, each.end_sample / RATE) for each in found]


def ignore(seconds):
    pass


def talk(*, until_seconds, every=2.0, spoken=1.5):
    """Regions of 1.5 s, one every 2 s."""
    return [region(start, start + spoken) for start in np.arange(0, until_seconds, every)]


def test_neighbours_share_a_window():
    """Regions that fit together are decoded together, with the audio between them, in the recording's own time."""
    regions = [region(1, 4), region(5, 9), region(10, 28)]

    assert list(windows(regions)) == [Window(tuple(regions))]
    assert spans(windows(regions)) == [(1, 28)]


def test_no_regions_no_windows():
    """A silent recording has nothing to decode."""
    assert list(windows([])) == []


def test_a_long_pause_ends_a_window():
    """Silence that would cost more than a window of its own is not decoded."""
    regions = [region(0, 2), region(6, 8), region(12.5, 14)]

    assert spans(windows(regions, max_pause_seconds=4.0)) == [(0, 8), (12.5, 14)]


def test_a_window_ends_at_the_longest_pause_near_its_end():
    """Where a sentence ends is a better place than the last pause that fits."""
    regions = [region(0, 10), region(10.2, 23), region(24, 26), region(26.3, 28), region(28.2, 54)]

    assert spans(windows(regions)) == [(0, 23), (24, 28), (28.2, 54)]


def test_a_scrap_at_the_end_is_avoided():
    """31 s of talk are two windows of about half, not one of 29 s and one of 2 s."""
    (first, second) = windows(talk(until_seconds=31))

    lengths = [(each.end_sample - each.start_sample) / RATE for each in (first, second)]
    assert sum(lengths) == pytest.approx(31, abs=1)
    assert min(lengths) > 9


def test_without_a_choice_a_window_may_be_short():
    """No region is parted only for balance."""
    assert spans(windows([region(0, 2), region(3, 31)])) == [(0, 2), (3, 31)]


def test_a_region_that_fits_no_window_is_refused():
    """What is beyond the model's 30 s would be lost without a word."""
    with pytest.raises(ValueError, match="longer than 29"):
        list(windows([region(0, 30)]))


def test_windows_come_before_the_recording_ends():
    """A window is out when not quite two windows of regions are known, whatever follows."""
    read = []

    def reading():
        for each in talk(until_seconds=10_000):
            read.append(each)
            yield each

    first = next(windows(reading()))

    assert first.start_sample == 0
    assert read[-1].end_sample <= 53 * RATE


def test_what_is_not_heard_is_counted():
    """Everything before, between and behind."""
    regions = [region(1, 4), region(5, 9)]

    assert seconds_outside(regions, 12 * RATE) == pytest.approx(5.0)
    assert seconds_outside(windows(regions), 12 * RATE) == pytest.approx(4.0)
    assert seconds_outside([], 12 * RATE) == pytest.approx(12.0)


@pytest.fixture
def noise():
    def make(seconds, quiet=()):
        samples = np.random.default_rng(0).integers(-3000, 3000, round(seconds * RATE), dtype=np.int16)
        for start, end in quiet:
            samples[round(start * RATE) : round(end * RATE)] //= 100
        return samples

    return make


def test_without_voice_detection_cuts_fall_into_quiet_places(noise):
    """Between two dips of 0.2 s no word is cut."""
    quiet = [(17.3, 17.5), (25.0, 25.2), (50.0, 50.2), (63.1, 63.3)]

    regions = list(everything(noise(75.0, quiet), ignore))

    cuts = [each.end_sample / RATE for each in regions[:-1]]
    assert len(cuts) == 2
    assert all(any(start < cut < end for start, end in quiet) for cut in cuts)


@pytest.mark.parametrize(
    ("seconds", "count"),
    [
        pytest.param(0, 0, id="empty"),
        pytest.param(0.01, 1, id="less than a frame"),
        pytest.param(28.9, 1, id="one window"),
        pytest.param(31, 2, id="a little more"),
        pytest.param(100, 4, id="several"),
    ],
)
def test_without_voice_detection_all_is_heard(noise, seconds, count):
    """Regions touch from the first sample to the last, and none is a scrap."""
    audio = noise(seconds)

    regions = list(everything(audio, ignore))

    lengths = [(each.end_sample - each.start_sample) / RATE for each in regions]
    assert len(regions) == count
    assert sum(lengths) == pytest.approx(seconds)
    assert seconds_outside(regions, len(audio)) == 0
    assert all(one.end_sample == two.start_sample for one, two in pairwise(regions))
    assert count < 2 or min(lengths) > 9


def test_plain_silence_makes_long_windows():
    """Where all places are equally quiet nothing is gained by an early cut."""
    first, *_ = everything(np.zeros(100 * RATE, dtype=np.int16), ignore)

    assert first.end_sample / RATE == pytest.approx(29, abs=0.1)


def test_the_loudest_sample_is_not_the_quietest(noise):
    """-32768 has no positive twin in 16 bits."""
    audio = noise(31.0, quiet=[(16.0, 16.3)])
    audio[12 * RATE : 13 * RATE] = -32768

    first, _ = everything(audio, ignore)

    assert 16.0 < first.end_sample / RATE < 16.3


def test_reading_is_reported(noise):
    """The heartbeat never goes back, and reaches the end."""
    heard = []

    list(everything(noise(31.0), heard.append))

    assert heard == sorted(heard)
    assert heard[-1] == pytest.approx(31.0)
    assert len(heard) > 2


def test_what_the_report_raises_ends_the_reading(noise):
    """A job that is withdrawn stops at its next heartbeat."""

    def refuse(seconds):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        list(everything(noise(31.0), refuse))


@pytest.mark.parametrize(
    ("activity", "expected"),
    [
        pytest.param([1.0] * 60 + [0.1] * 6 + [1.0] * 44, 63, id="middle of a dip"),
        pytest.param([1.0] * 60 + [0.0] + [1.0] * 9 + [0.3] * 6 + [1.0] * 34, 73, id="a wide dip, not one frame"),
        pytest.param([0.0] * 20 + [1.0] * 40 + [0.5] * 6 + [1.0] * 44, 63, id="not near the start"),
        pytest.param([1.0] * 110, 73, id="no dip"),
    ],
)
def test_the_deepest_dip_is_found(activity, expected):
    """Of 110 frames where 100 fit, the cut is in the middle third, where 0.2 s are least active."""
    assert quietest(activity, 100) == expected
