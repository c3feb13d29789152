"""What the engine faster-whisper makes of device and compute type, and how it starts."""

import sys
from pathlib import Path

import pytest

from whisperd.core.errors import BootError
from whisperd.core.options import EngineOptions
from whisperd.engine.create import create

CPU = {"float32", "int8", "int8_float32"}
GPU = {"float32", "float16", "bfloat16", "int8", "int8_float32", "int8_float16", "int8_bfloat16"}


@pytest.fixture
def load():
    pytest.importorskip("faster_whisper", reason="faster-whisper is not installed")
    from whisperd.engine.faster_whisper import load  # noqa: PLC0415

    return load


@pytest.mark.parametrize(
    ("asked", "device", "supported", "name"),
    [
        pytest.param("auto", "cpu", CPU, "int8_float32", id="cpu: 8 bits"),
        pytest.param("auto", "cuda", GPU, "float16", id="gpu: half"),
        pytest.param("auto", "cuda", CPU, "float32", id="an old gpu"),
        pytest.param("fp32", "cpu", CPU, "float32", id="as asked"),
        pytest.param("int8", "cuda", GPU, "int8_float16", id="8 bits beside half"),
    ],
)
def test_a_compute_type_is_one_that_the_device_has(load, asked, device, supported, name):
    """Auto is the fastest in hardware, anything else is what was asked for."""
    assert load.compute_type(asked, device, supported) == name


def test_a_compute_type_that_the_device_lacks_stops_the_start(load):
    """It would run, many times slower; the hint names those that do not."""
    with pytest.raises(BootError, match="cpu cannot compute in fp16") as caught:
        load.compute_type("fp16", "cpu", CPU)

    assert "fp32, int8" in caught.value.hint


@pytest.mark.parametrize(
    ("asked", "gpus", "found"),
    [("auto", 0, ("cpu", 0)), ("auto", 2, ("cuda", 0)), ("cuda:1", 2, ("cuda", 1)), ("cpu", 2, ("cpu", 0))],
)
def test_the_device_asked_for_is_taken(load, asked, gpus, found):
    """Auto is the first GPU, else the processor."""
    assert load.find_device(asked, gpus) == found


def test_a_gpu_that_is_not_there_stops_the_start(load):
    """With what CTranslate2 sees, which may differ from what torch sees."""
    with pytest.raises(BootError, match="'cuda:2' is not there: CTranslate2 sees 1"):
        load.find_device("cuda:2", 1)


def test_weights_that_are_no_model_stop_the_start(load, tmp_path):
    """A damaged directory is named, and the network is not asked for another."""
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")

    with pytest.raises(BootError, match="cannot load"):
        create(EngineOptions("faster-whisper", str(tmp_path), tmp_path, device="cpu", threads=1))


def test_without_the_package_the_hint_says_how_to_get_it(monkeypatch):
    """The engine is an extra."""
    monkeypatch.delitem(sys.modules, "whisperd.engine.faster_whisper.engine", raising=False)
    monkeypatch.setitem(sys.modules, "ctranslate2", None)  # importing it raises ModuleNotFoundError

    with pytest.raises(BootError, match="not installed") as caught:
        create(EngineOptions("faster-whisper", "base", Path("nowhere"), device="cpu", threads=1))

    assert "whisperd[faster-whisper]" in caught.value.hint
