"""Preparing: tracks, and channels that are speakers, are separated."""

import numpy as np
import pytest

from whisperd.core.options import MediaOptions
from whisperd.worker.prepare import BLOCK, Prepared, channels, same, separate, speakers


def test_each_channel_is_by_itself():
    """Views of what is on disk: nothing is copied."""
    samples = np.arange(12, dtype=np.int16)

    found = channels([separate(samples, 3)])

    assert [channel.tolist() for channel in found] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert all(np.shares_memory(channel, samples) for channel in found)


def test_channels_that_are_the_same_are_one_speaker():
    """Until the last sample; one that differs late is another."""
    twice = np.zeros(2 * (BLOCK + 10), dtype=np.int16)
    late = twice.copy()
    late[-1] = 1

    assert separate(twice, 2).shape == (BLOCK + 10,)
    assert separate(late, 2).shape == (BLOCK + 10, 2)
    assert separate(twice, 1).shape == twice.shape


def test_tracks_are_the_same_if_every_sample_is():
    """Length and number of channels included."""
    one = np.zeros(BLOCK + 10, dtype=np.int16)
    late = one.copy()
    late[-1] = 1

    assert same(one, one.copy())
    assert not same(one, late)
    assert not same(one, one[:-1])
    assert not same(one, np.zeros((BLOCK + 10, 1), dtype=np.int16))


def test_speakers_have_the_names_they_were_given_and_numbers_else():
    """More names than channels do no harm."""
    three = np.zeros((5, 3), dtype=np.int16)

    assert speakers([three], ["Mixer"], ("Ann",)) == ("Ann", "Speaker 2", "Speaker 3")
    assert speakers([three], [""], ("A", "B", "C", "D")) == ("A", "B", "C")
    assert speakers([three[:, 0]], ["Mixer"], ("Ann",)) == ()


def test_tracks_have_the_names_they_were_given_and_their_own_else():
    """Where a track has several speakers, its channels are numbered."""
    mono, stereo = np.zeros(5, dtype=np.int16), np.zeros((7, 2), dtype=np.int16)

    assert speakers([mono, mono], ["Studio", "fra"], ()) == ("Studio", "fra")
    assert speakers([mono, mono], ["Studio", "fra"], ("Ann",)) == ("Ann", "fra")
    assert speakers([mono, stereo], ["Studio", "fra"], ()) == ("Studio", "fra, channel 1", "fra, channel 2")


def test_windows_of_a_shorter_track_are_cut_where_they_are():
    """Times count as if all were as long as the longest; behind the end of a track is silence."""
    sounds = [np.arange(10, dtype=np.int16), np.arange(100, 104, dtype=np.int16)]
    prepared = Prepared(None, sounds, ("A", "B"), [], [])

    assert prepared.total == 20
    assert prepared.cut(3, 10).tolist() == [3, 4, 5, 6, 7, 8, 9]
    assert prepared.cut(11, 14).tolist() == [101, 102, 103]
    assert prepared.cut(12, 17).tolist() == [102, 103, 0, 0, 0]
    assert len(prepared.cut(12, 25)) == 8


@pytest.mark.parametrize("tracks", ["first", "all", 1, 99])
def test_tracks_may_be_chosen(tracks):
    """By word or number."""
    assert MediaOptions.model_validate({"tracks": tracks}).tracks == tracks


@pytest.mark.parametrize("tracks", ["last", 0, -1, 1.5, True, None, "1"])
def test_other_choices_of_tracks_are_refused(tracks):
    """Before anything is transcribed."""
    with pytest.raises(ValueError, match="tracks"):
        MediaOptions.model_validate({"tracks": tracks})
