"""The real weights of the extras: whole, converted without loss, and able to transcribe."""

import importlib.resources
import json

import jiwer
import pytest
import soundfile
import torch
import whisper
from whisper.normalizers import EnglishTextNormalizer

from whisperd.engine.weights.checkpoint import load
from whisperd.engine.weights.convert import import_directory
from whisperd.engine.weights.find import find, verify

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:unclosed file .*whisper:ResourceWarning"),  # openai-whisper's own tables
]


@pytest.fixture(autouse=True)
def _two_threads():
    torch.set_num_threads(2)


@pytest.mark.parametrize("name", ["base", "tiny.en"])
def test_the_extras_bring_whole_weights_and_the_right_heads(tmp_path, name):
    """The joined files have the pinned hash, and openai-whisper's heads are those that the package names."""
    weights = verify(name, tmp_path)

    model = load(weights, "cpu")

    config = json.loads((weights.paths[0].parent / "config.json").read_bytes())
    assert weights.kind == "package"
    assert model.is_multilingual == (not name.endswith(".en"))
    assert model.alignment_heads.indices().T.tolist() == config["alignment_heads"]
    assert list(tmp_path.iterdir()) == []


def test_import_and_package_give_the_same_model(tmp_path):
    """`base` through an import equals `base` from the package, bit for bit, also for openai-whisper's own loader."""
    package = find("base", tmp_path)
    source = tmp_path / "ct2"
    source.mkdir()
    (source / "model.bin").write_bytes(b"".join(path.read_bytes() for path in package.paths))
    (source / "config.json").write_bytes((package.paths[0].parent / "config.json").read_bytes())

    imported = import_directory(source, "base", tmp_path)

    expected = load(package, "cpu")
    assert find("base", tmp_path) == imported == verify("base", tmp_path)
    for model in (load(imported, "cpu"), whisper.load_model(str(imported.paths[0]), device="cpu")):
        assert model.dims == expected.dims
        assert model.state_dict().keys() == expected.state_dict().keys()
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in expected.state_dict().items())
    assert torch.equal(load(imported, "cpu").alignment_heads.indices(), expected.alignment_heads.indices())


@pytest.mark.parametrize("name", ["base", "tiny.en"])
@pytest.mark.parametrize("clip", ["quick_brown_fox", "hello_world"])
def test_the_weights_transcribe(tmp_path, name, clip):
    """A spoken sentence comes out as it was said, with words that follow each other in time."""
    samples = importlib.resources.files("pytest_audioeval") / "samples" / "audio" / "en"
    audio, rate = soundfile.read(str(samples / f"{clip}.wav"), dtype="float32")
    model = load(find(name, tmp_path), "cpu")

    result = model.transcribe(audio, language="en", fp16=False, word_timestamps=True)

    normalise = EnglishTextNormalizer()
    words = [word for segment in result["segments"] for word in segment["words"]]
    said = normalise((samples / f"{clip}.txt").read_text())
    assert rate == 16_000
    assert jiwer.wer(said, normalise(result["text"])) <= 0.1
    assert [word["start"] for word in words] == sorted(word["start"] for word in words)
    assert words[-1]["end"] <= len(audio) / rate + 0.1
