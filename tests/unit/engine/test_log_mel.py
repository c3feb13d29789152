import numpy as np
import pytest
import torch
from whisper.audio import N_FRAMES, N_SAMPLES, log_mel_spectrogram

from whisperd.engine.log_mel import LogMel

SAMPLE_RATE = 16_000


def noise(samples):
    """Noise that swells and fades over some seconds."""
    swell = np.abs(np.sin(np.arange(samples) / 50_000))
    return (np.random.default_rng(samples).standard_normal(samples) * 4000 * swell).astype(np.int16)


def whole(audio, n_mels=80):
    return log_mel_spectrogram(audio.astype(np.float32) / 32768.0, n_mels, padding=N_SAMPLES)


def ignore(frame):
    pass


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(201, id="one frame"),
        pytest.param(1_601, id="a tenth of a second"),
        pytest.param(30 * SAMPLE_RATE, id="exactly one window"),
        pytest.param(30 * SAMPLE_RATE + 41, id="a few samples more"),
        pytest.param(185 * SAMPLE_RATE + 13, id="three minutes"),
    ],
)
def test_windows_are_what_whisper_computes_of_the_whole(samples, n_mels):
    """Window by window or all at once: the same spectrogram, its padding included."""
    audio = noise(samples)
    expected = whole(audio, n_mels)

    mel = LogMel(audio, n_mels, ignore)

    assert mel.shape == tuple(expected.shape)
    for begin in range(0, mel.shape[1], N_FRAMES):
        torch.testing.assert_close(
            mel[:, begin : begin + N_FRAMES], expected[:, begin : begin + N_FRAMES], rtol=0, atol=1e-5
        )


@pytest.mark.parametrize(("begin", "end"), [(0, 1), (1, 2), (1, 3001), (777, 2345), (6001, 9001), (None, 3000)])
def test_a_window_may_start_at_any_frame(begin, end):
    """Whisper seeks to where the last segment ended, in steps of 10 ms."""
    audio = noise(65 * SAMPLE_RATE + 5)

    window = LogMel(audio, 80, ignore)[:, begin:end]

    torch.testing.assert_close(window, whole(audio)[:, begin:end], rtol=0, atol=1e-5)


def test_the_loudest_moment_of_the_file_clamps_quiet_windows_far_away():
    """What lies 80 dB under the loudest moment is flat, as in whisper, though that moment is in another window."""
    audio = np.random.default_rng(0).integers(-1, 2, 90 * SAMPLE_RATE).astype(np.int16)
    alone = LogMel(audio[: 30 * SAMPLE_RATE].copy(), 80, ignore)[:, :2000]
    audio[-SAMPLE_RATE:] = 30_000 * np.sin(np.arange(SAMPLE_RATE) * 2 * np.pi * 1000 / SAMPLE_RATE)

    beside_a_whistle = LogMel(audio, 80, ignore)[:, :2000]

    assert alone.std() > 0.01
    assert beside_a_whistle.min() == beside_a_whistle.max()


def test_a_read_only_map_gives_the_same_windows(tmp_path):
    """Pages that were read are given back, and read again when they are needed."""
    audio = noise(65 * SAMPLE_RATE)
    path = tmp_path / "audio.s16"
    path.write_bytes(audio.tobytes())
    mel = LogMel(np.memmap(path, dtype=np.int16, mode="r"), 80, ignore)

    first, again = mel[:, 1000:4000], mel[:, 1000:4000]

    assert torch.equal(first, again)
    assert torch.equal(first, LogMel(audio, 80, ignore)[:, 1000:4000])


def test_a_private_map_keeps_what_was_written_into_it(tmp_path):
    """Pages of a copy-on-write map exist nowhere else: giving them back would lose them."""
    path = tmp_path / "audio.s16"
    path.write_bytes(bytes(2 * SAMPLE_RATE))
    audio = np.memmap(path, dtype=np.int16, mode="c")
    audio[:] = noise(40 * SAMPLE_RATE)[: len(audio)] + 1

    LogMel(audio, 80, ignore)

    assert audio.any()


def test_whoever_watches_learns_where_the_work_is():
    """Zero at each 30 s of the first pass, then the first frame of each window."""
    seen = []
    mel = LogMel(noise(65 * SAMPLE_RATE), 80, seen.append)
    seen.append("ready")

    _ = mel[:, 4200:6500]

    assert seen == [0, 0, 0, "ready", 4200]


@pytest.mark.parametrize(
    "key",
    [
        pytest.param((slice(0, 10), slice(0, 10)), id="some mels"),
        pytest.param((slice(None), slice(0, 10, 2)), id="every other frame"),
        pytest.param((slice(None), slice(10, 10)), id="no frames"),
    ],
)
def test_what_whisper_never_asks_for_is_refused(key):
    """A later whisper that reads the spectrogram in another way fails loudly instead of hearing something else."""
    mel = LogMel(noise(SAMPLE_RATE), 80, ignore)

    with pytest.raises(IndexError, match="only mel"):
        mel[key]


def test_less_than_a_frame_is_refused():
    """The Fourier transform needs its first frame whole."""
    with pytest.raises(ValueError, match="200 samples are less than one frame"):
        LogMel(np.zeros(200, dtype=np.int16), 80, ignore)
