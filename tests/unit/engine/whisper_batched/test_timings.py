"""How fast this processor is at each kernel is measured once, and kept."""

import json

import pytest
import torch

from whisperd.engine.whisper_batched import timings as module
from whisperd.engine.whisper_batched.precision import choose
from whisperd.engine.whisper_batched.timings import FILE, measure, processor, timings

CPU = torch.device("cpu")


@pytest.fixture
def few(monkeypatch):
    """Kernels that take no time, called by name."""
    called = []

    def kernels(*names):
        return lambda: [(name, lambda name=name: called.append(name)) for name in names]

    monkeypatch.setattr(module, "_products", kernels("product fp32", "product int8"))
    monkeypatch.setattr(module, "_encoder_attention", kernels("encoder fp32 fused"))
    monkeypatch.setattr(module, "_step_attention", kernels("step fp32 fused", "step bf16 fused"))
    return called


def clock(*durations):
    """A clock by which the calls between its readings take these seconds, in turn, and the last one for ever."""
    now, readings = 0.0, 0
    durations = list(durations)

    def read():
        nonlocal now, readings
        readings += 1
        if readings % 2 == 0:
            now += durations.pop(0) if len(durations) > 1 else durations[0]
        return now

    return read


def test_the_best_of_several_rounds_counts_and_the_first_one_does_not(few):
    """A kernel that is disturbed once is not thought slow; the first call also pays for buffers."""
    best = measure(clock(0.01, 0.01, 0.05, 0.02, 0.03, 0.04, 0.06))

    assert best["product fp32"] == pytest.approx(0.03)
    assert best["product int8"] == pytest.approx(0.02)


def test_kernels_are_measured_in_turn(few):
    """What disturbs the machine for a while disturbs all of them."""
    measure(clock(0.01))

    assert few[:4] == ["product fp32", "product int8"] * 2


def test_a_kernel_that_is_far_too_slow_is_measured_once(few):
    """An emulated format must not hold up the start."""
    best = measure(clock(5.0, 0.01))

    assert few.count("product fp32") == 1
    assert best["product fp32"] == 5.0


def test_a_measurement_is_kept_for_the_next_start(few, tmp_path):
    """Each worker, and each start, makes the same choice, so a job that is continued gets the same text."""
    first = timings(tmp_path)
    few.clear()

    assert timings(tmp_path) == first
    assert few == []


def test_another_processor_is_measured_anew(few, tmp_path):
    """A models directory may be shared, or moved to another machine."""
    (tmp_path / FILE).write_text(json.dumps({"another": {"product fp32": 1.0}}))

    found = timings(tmp_path)

    assert len(found) == 5
    assert set(json.loads((tmp_path / FILE).read_text())) == {"another", processor()}


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}', '{"x": {"y": "z"}}', "\x00"])
def test_a_damaged_file_is_replaced(few, tmp_path, content):
    """It is only a cache."""
    (tmp_path / FILE).write_text(content)

    assert timings(tmp_path) == json.loads((tmp_path / FILE).read_text())[processor()]


def test_a_directory_that_cannot_be_written_is_no_reason_to_fail(few, tmp_path):
    """Models may lie on a share that is read-only."""
    (tmp_path / "file").touch()

    assert timings(tmp_path / "file" / "models")


def test_whoever_only_looks_writes_nothing(few, tmp_path):
    """`whisperd check` changes nothing."""
    timings(tmp_path, keep=False)

    assert not list(tmp_path.iterdir())


def test_this_machine_can_be_measured_and_chosen_for(monkeypatch):
    """The real kernels, at a smaller size."""
    monkeypatch.setattr(module, "FRAMES", 320)
    monkeypatch.setattr(module, "WIDTH", 64)

    chosen = choose(CPU, "auto", measure())

    assert chosen.name in {"fp32", "bf16", "int8"}
