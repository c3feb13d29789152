"""Channels apart and together again."""

import numpy as np

from whisperd.core.transcript import Segment, Transcript
from whisperd.engine.api import SAMPLE_RATE, DecodedWindow
from whisperd.media.ffmpeg_run import FfmpegLog
from whisperd.worker.channels import BLOCK, apart, speakers, together, tracks
from whisperd.worker.recording import Recording


def test_each_channel_is_a_track():
    """Views of what is on disk: nothing is copied."""
    samples = np.arange(12, dtype=np.int16)

    found = tracks(apart(samples, 3))

    assert [track.tolist() for track in found] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert all(np.shares_memory(track, samples) for track in found)


def test_channels_that_are_the_same_are_one_speaker():
    """Until the last sample; one that differs late is another."""
    same = np.zeros(2 * (BLOCK + 10), dtype=np.int16)
    late = same.copy()
    late[-1] = 1

    assert apart(same, 2).shape == (BLOCK + 10,)
    assert apart(late, 2).shape == (BLOCK + 10, 2)
    assert apart(same, 1).shape == same.shape


def test_speakers_have_the_names_they_were_given_and_numbers_else():
    """More names than channels do no harm."""
    three = np.zeros((5, 3), dtype=np.int16)

    assert speakers(three, ("Ann",)) == ("Ann", "Speaker 2", "Speaker 3")
    assert speakers(three, ("A", "B", "C", "D")) == ("A", "B", "C")
    assert speakers(three[:, 0], ("Ann",)) == ()


def test_what_was_said_is_in_the_order_in_which_it_was_said():
    """The language is that of whoever said most."""
    left = Transcript(" hi good", (Segment(0.0, 1.0, " hi"), Segment(5.0, 6.0, " good")), "en")
    right = Transcript(" allo oui bien sûr", (Segment(2.0, 3.0, " allo"), Segment(7.0, 8.0, " oui bien sûr")), "fr")

    whole = together([left, right], ["L", "R"])

    assert [(each.speaker, each.text) for each in whole.segments] == [
        ("L", " hi"), ("R", " allo"), ("L", " good"), ("R", " oui bien sûr"),
    ]  # fmt: skip
    assert (whole.text, whole.language) == (" hi allo good oui bien sûr", "fr")


def decoded(text, start, end):
    """A window whose only segment claims to be longer than it is."""
    segments = (Segment(start, end, f" {text}", avg_logprob=-0.2),)
    return DecodedWindow("en", None, segments, 99.0, 0.0, -0.2, 1.0, 0.0, silent=False, attempts=1, looped=False)


def test_windows_of_several_channels_are_placed_in_the_time_of_each():
    """In a batch the channels come one after the other; times, and progress, are those of the recording."""
    ten = 10 * SAMPLE_RATE
    windows = [(0, 2 * SAMPLE_RATE), (5 * SAMPLE_RATE, ten), (ten, ten + 3 * SAMPLE_RATE)]
    recording = Recording(windows, 2 * ten, "en", ("L", "R"))
    done = []
    while (span := recording.next()) is not None:
        recording.take(span, decoded(str(span.index), start=0.5, end=99.0))
        done.append(recording.processed_seconds)

    assert [(each.speaker, each.start, each.end) for each in recording.transcript().segments] == [
        ("L", 0.5, 10.0), ("R", 0.5, 10.0), ("L", 5.5, 10.0),
    ]  # fmt: skip
    assert done == [1.0, 5.0, 10.0]


def test_the_channels_of_the_output_are_read_from_what_ffmpeg_says():
    """Of the samples that come out, not of the recording or of its copy."""
    log = FfmpegLog()
    log.feed(b"""[info] Input #0, wav, from 'fd:':
[info]   Stream #0:0: Audio: pcm_s16le ([1][0][0][0] / 0x0001), 48000 Hz, 5.1, s16, 4608 kb/s
[info] Output #1, null, to 'pipe:':
[info]   Stream #1:0: Audio: pcm_s16le ([1][0][0][0] / 0x0001), 48000 Hz, 5.1, s16, 4608 kb/s
[info] Output #0, s16le, to 'pipe:1':
[info]   Stream #0:0: Audio: pcm_s16le, 16000 Hz, 5.1, s16, 1536 kb/s
[info]   Stream #0:0: Audio: pcm_s16le, 16000 Hz, 5.1, s16, 256 kb/s
""")

    assert log.channels == 6
