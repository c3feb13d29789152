"""Preparing: channels that are speakers are separated."""

import numpy as np

from whisperd.worker.prepare import BLOCK, separate, speakers, tracks


def test_each_channel_is_a_track():
    """Views of what is on disk: nothing is copied."""
    samples = np.arange(12, dtype=np.int16)

    found = tracks(separate(samples, 3))

    assert [track.tolist() for track in found] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert all(np.shares_memory(track, samples) for track in found)


def test_channels_that_are_the_same_are_one_speaker():
    """Until the last sample; one that differs late is another."""
    same = np.zeros(2 * (BLOCK + 10), dtype=np.int16)
    late = same.copy()
    late[-1] = 1

    assert separate(same, 2).shape == (BLOCK + 10,)
    assert separate(late, 2).shape == (BLOCK + 10, 2)
    assert separate(same, 1).shape == same.shape


def test_speakers_have_the_names_they_were_given_and_numbers_else():
    """More names than channels do no harm."""
    three = np.zeros((5, 3), dtype=np.int16)

    assert speakers(three, ("Ann",)) == ("Ann", "Speaker 2", "Speaker 3")
    assert speakers(three, ("A", "B", "C", "D")) == ("A", "B", "C")
    assert speakers(three[:, 0], ("Ann",)) == ()
