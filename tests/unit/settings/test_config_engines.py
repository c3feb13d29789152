"""What the choice of an engine brings along in the configuration."""

import pytest

from whisperd.cli import doctor
from whisperd.core.errors import ConfigError
from whisperd.settings import config


@pytest.mark.parametrize(
    ("engine", "decoding", "shared"),
    [
        pytest.param("openai-whisper", "sequential", False, id="one file after the other"),
        pytest.param("openai-whisper", "batched", True, id="windows"),
        pytest.param("faster-whisper", "sequential", True, id="windows, whatever decoding says"),
        pytest.param("scripted", "batched", False, id="scripted"),
    ],
)
def test_engines_that_decode_windows_share_them_between_jobs(tmp_path, engine, decoding, shared):
    """Others take one job at a time."""
    settings = config.load(root=tmp_path, engine=engine, decoding=decoding)

    assert (settings.jobs_per_worker() > 1) is shared


def test_hotwords_need_their_engine(tmp_path):
    """Elsewhere they would be ignored in silence."""
    config.load(root=tmp_path, engine="faster-whisper", transcription={"hotwords": "Ctesiphon"})

    with pytest.raises(ConfigError, match="hotwords needs engine: faster-whisper"):
        config.load(root=tmp_path, transcription={"hotwords": "Ctesiphon"})


@pytest.mark.parametrize("windows", [{"engine": "faster-whisper"}, {"decoding": "batched"}, {}])
def test_silence_is_skipped_by_sequential_decoding_alone(tmp_path, windows):
    """Where windows are decoded the threshold would be ignored in silence; in a profile too."""
    wanted = {"word_timestamps": True, "hallucination_silence_threshold": 2.0}
    config.load(root=tmp_path, decoding="sequential", transcription=wanted)

    for changes in ({"transcription": wanted}, {"profiles": {"meetings/**": wanted}}):
        with pytest.raises(ConfigError, match=r"hallucination_silence_threshold.* needs decoding: sequential"):
            config.load(root=tmp_path, **windows, **changes)


def test_check_looks_for_weights_of_the_right_format(tmp_path):
    """A checkpoint of openai-whisper is of no use to faster-whisper."""
    (tmp_path / "medium.pt").write_bytes(b"weights")
    settings = config.load(root=tmp_path, engine="faster-whisper", model="medium", models_directory=str(tmp_path))

    (finding,) = [found for found in doctor.examine(settings) if "medium" in found.text or "faster" in found.text]

    assert finding.level == "error"
    assert finding.hint
