"""Voice detection: what the network's probabilities become, and what the network is given."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import whisperd
from whisperd.core.errors import BootError
from whisperd.core.options import VadOptions
from whisperd.media.vad import Detector, find_speech
from whisperd.media.windows import FRAME_SAMPLES, windows

RATE = 16_000
ROOT = Path(whisperd.__file__).parents[1]
OPTIONS = VadOptions(threshold=0.5, min_speech_seconds=0.1, min_silence_seconds=0.32, speech_pad_seconds=0.064)
PAD = 2  # frames


def ignore(seconds):
    pass


def frames(*runs):
    """`(count, probability)` runs as one piece."""
    return [np.concatenate([np.full(count, value, dtype=np.float32) for count, value in runs])]


def found(*runs, options=OPTIONS, max_seconds=29.0):
    """Regions in frames."""
    pieces = frames(*runs)
    regions = find_speech(pieces, len(pieces[0]) * FRAME_SAMPLES, options, max_seconds=max_seconds)
    return [(each.start_sample / FRAME_SAMPLES, each.end_sample / FRAME_SAMPLES) for each in regions]


@pytest.fixture(scope="module")
def detector():
    return Detector()


@pytest.fixture
def hum():
    """A minute of noise that swells and fades, so that the probabilities vary."""
    seconds = np.arange(60 * RATE) / RATE
    voice = sum(np.sin(2 * np.pi * 130 * part * seconds) / part for part in range(1, 12))
    return (3000 * voice * np.sin(2 * np.pi * 0.7 * seconds) ** 2).astype(np.int16)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        pytest.param([(100, 0.1)], [], id="silence"),
        pytest.param([(50, 0.1), (50, 0.9), (50, 0.1)], [(50 - PAD, 100 + PAD)], id="speech with margins"),
        pytest.param([(50, 0.1), (3, 0.9), (50, 0.1)], [], id="a click"),
        pytest.param([(1, 0.9), (50, 0.8), (50, 0.1)], [(0, 51 + PAD)], id="from the first sample"),
        pytest.param([(50, 0.1), (50, 0.9)], [(50 - PAD, 100)], id="to the last sample"),
        pytest.param([(50, 0.9), (9, 0.1), (50, 0.9), (20, 0.1)], [(0, 109 + PAD)], id="a short pause"),
        pytest.param(
            [(50, 0.9), (12, 0.1), (50, 0.9), (20, 0.1)], [(0, 50 + PAD), (62 - PAD, 112 + PAD)], id="a pause"
        ),
        pytest.param([(50, 0.9), (50, 0.4), (20, 0.1)], [(0, 100 + PAD)], id="above the lower threshold"),
        pytest.param([(50, 0.4), (20, 0.1)], [], id="below the upper threshold"),
    ],
)
def test_probabilities_become_regions(runs, expected):
    """Speech begins above one threshold, ends below another, and neither clicks nor short pauses count."""
    assert found(*runs) == expected


def test_near_regions_share_the_pause_between_them():
    """Margins never overlap."""
    options = VadOptions(threshold=0.5, min_speech_seconds=0, min_silence_seconds=0.1, speech_pad_seconds=0.4)

    assert found((50, 0.9), (10, 0.1), (50, 0.9), options=options) == [(0, 55), (55, 110)]


def test_long_speech_is_cut_where_speech_is_least_likely():
    """Somebody who talks for two minutes without a pause is cut in breaths, and all of it is heard."""
    breaths = (400, 800, 1100, 1700, 2000, 2500, 3100, 3500)
    probabilities = np.full(3750, 0.95, dtype=np.float32)
    for breath in breaths:
        probabilities[breath : breath + 6] = 0.45

    regions = list(find_speech([probabilities], 3750 * FRAME_SAMPLES, OPTIONS))

    cuts = [each.end_sample / FRAME_SAMPLES for each in regions[:-1]]
    assert [each.start_sample for each in regions[1:]] == [each.end_sample for each in regions[:-1]]
    assert {cut - 3 for cut in cuts} < set(breaths)
    assert max(each.end_sample - each.start_sample for each in regions) <= 29 * RATE
    assert (regions[0].start_sample, regions[-1].end_sample) == (0, 3750 * FRAME_SAMPLES)


def test_regions_come_before_the_recording_ends():
    """A region is out when the next one is known; of speech without an end the first part, after two windows."""
    asked = []

    def pieces(value):
        for number in range(10_000):
            asked.append(number)
            yield np.concatenate([np.full(20, value, dtype=np.float32), np.full(20, 0.9, dtype=np.float32)])

    next(find_speech(pieces(0.1), 400_000 * FRAME_SAMPLES, OPTIONS))
    talk = len(asked)
    asked.clear()
    next(find_speech(pieces(0.9), 400_000 * FRAME_SAMPLES, OPTIONS))
    endless = len(asked)

    assert talk == 3
    assert endless * 40 * FRAME_SAMPLES < 90 * RATE


def test_margins_must_leave_room_for_speech():
    """Settings under which no region fits a window are refused, not tried for ever."""
    with pytest.raises(ValueError, match="speech_pad_seconds"):
        found((50, 0.9), max_seconds=0.14)


def test_the_package_is_not_imported():
    """Importing silero_vad sets torch to one thread for the whole process, the engine's too."""
    program = (
        "import sys, numpy, torch\n"
        "torch.set_num_threads(3)\n"
        "from whisperd.media.vad import Detector\n"
        "[*Detector().probabilities(numpy.zeros(16000, dtype=numpy.int16), print)]\n"
        "print({'onnxruntime', 'silero_vad'} & {*sys.modules}, torch.get_num_threads())\n"
    )

    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "1.0\nset() 3\n", "")


def test_every_sample_is_looked_at(detector):
    """There is a probability for each 32 ms begun."""

    def count(samples):
        return sum(len(piece) for piece in detector.probabilities(np.zeros(samples, dtype=np.int16), ignore))

    assert [count(samples) for samples in (0, 1, 512, 513)] == [0, 1, 1, 2]


def test_pieces_change_nothing(detector, hum, monkeypatch):
    """How much is read at once cannot be seen in the result, but for rounding."""
    at_once = np.concatenate(list(detector.probabilities(hum, ignore)))

    monkeypatch.setattr("whisperd.media.vad.PIECE_FRAMES", 37)
    in_pieces = list(detector.probabilities(hum, ignore))

    assert len(in_pieces) > 50
    np.testing.assert_allclose(np.concatenate(in_pieces), at_once, atol=1e-5)
    assert np.ptp(at_once) > 0.01


def test_a_memory_map_is_as_good_as_an_array(detector, hum, tmp_path):
    """Decoded audio is read from disk, piece by piece and read-only."""
    hum.tofile(tmp_path / "audio")
    mapped = np.memmap(tmp_path / "audio", dtype=np.int16, mode="r")

    assert all(map(np.array_equal, detector.probabilities(mapped, ignore), detector.probabilities(hum, ignore)))


def test_threads_share_one_detector(detector, hum):
    """Jobs that are prepared at the same time do not mix."""
    recordings = [hum, hum // 2, hum[::-1], hum[: 20 * RATE]]

    def listen(audio):
        return np.concatenate(list(detector.probabilities(audio, ignore)))

    with ThreadPoolExecutor(len(recordings)) as pool:
        together = list(pool.map(listen, recordings))

    assert all(map(np.array_equal, together, map(listen, recordings)))
    assert not any(np.array_equal(one, two) for one, two in pairwise(together))


def test_reading_is_reported(detector, hum):
    """The heartbeat never goes back, and reaches the end."""
    heard = []

    detector.regions(hum, OPTIONS, heard.append)

    assert heard == sorted(heard)
    assert heard[-1] == pytest.approx(60.0)
    assert len(heard) > 5


def test_what_the_report_raises_ends_the_detection(detector, hum):
    """A job that is withdrawn stops at its next heartbeat."""

    def refuse(seconds):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        detector.regions(hum, OPTIONS, refuse)


def test_nothing_is_found_in_nothing(detector):
    """An empty recording and a silent one have no windows."""
    for samples in (0, 100, 60 * RATE):
        assert list(windows(detector.detect(np.zeros(samples, dtype=np.int16), OPTIONS, ignore))) == []


def test_a_missing_package_stops_the_boot(monkeypatch):
    """The operator hears what to install, not a traceback."""

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)

    with pytest.raises(BootError, match=r"silero-vad.*pip install"):
        Detector()


@pytest.mark.parametrize("content", [pytest.param(None, id="missing"), pytest.param(b"<html>", id="damaged")])
def test_unusable_weights_stop_the_boot(monkeypatch, tmp_path, content):
    """A package without its weights, or with other bytes in their place, is named together with the remedy."""
    (tmp_path / "silero_vad" / "data").mkdir(parents=True)
    path = tmp_path / "silero_vad" / "data" / "silero_vad_16k_sequence.onnx"
    if content is not None:
        path.write_bytes(content)
    info = tmp_path / "silero_vad-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: silero-vad\nVersion: 1.0\n", "utf-8")
    monkeypatch.setattr(metadata, "distribution", lambda name: metadata.PathDistribution(info))

    with pytest.raises(BootError, match=str(path)) as caught:
        Detector()

    assert "pip install" in caught.value.hint
