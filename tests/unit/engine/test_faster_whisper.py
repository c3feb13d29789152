"""Which windows CTranslate2 decodes together, which attempt counts, and how the engine starts."""

import sys
from pathlib import Path

import numpy as np
import pytest
from support.options import options

from whisperd.core.errors import BootError
from whisperd.core.options import EngineOptions
from whisperd.engine.api import AudioWindow, create
from whisperd.engine.faster_whisper import (
    Attempt,
    QueueEntry,
    best_attempt,
    compute_type,
    find_device,
    next_batch,
    settings_for,
)
from whisperd.engine.whisper_batched.quality import Quality

SILENCE = np.zeros(16_000, np.int16)
CPU = {"float32", "int8", "int8_float32"}
GPU = {"float32", "float16", "bfloat16", "int8", "int8_float32", "int8_float16", "int8_bfloat16"}


def entry(handle, *, before=(), temperature=0.0, **changes):
    wanted = options(**changes)
    return QueueEntry(
        handle, AudioWindow(SILENCE, wanted, None), before, settings_for(wanted, temperature, len(before), ()), None
    )


def attempt(*, avg_logprob=-0.2, compression_ratio=1.0):
    return Attempt((1, 2), 0.0, Quality(avg_logprob, compression_ratio, no_speech_prob=0.0, looped=False))


def handles(queue, most=8):
    return [one.handle for one in next_batch(queue, most)]


def test_languages_and_tasks_share_a_batch():
    """They are part of each window's prompt."""
    queue = [entry(1, language="en"), entry(2, language="fr"), entry(3, task="translate")]

    assert handles(queue) == [1, 2, 3]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"beam_size": 5}, id="beams"),
        pytest.param({"temperature": 0.2}, id="temperature"),
        pytest.param({"before": (1, 2)}, id="length of the prompt"),
        pytest.param({"length_penalty": 0.5}, id="length penalty"),
    ],
)
def test_what_is_searched_for_in_another_way_waits(other):
    """One batch has one settings, and that of the window that waits longest comes first."""
    queue = [entry(1), entry(2, **other), entry(3)]

    assert handles(queue) == [1, 3]
    assert handles(queue[1:]) == [2]


def test_a_batch_is_no_larger_than_it_may_be():
    """The rest waits its turn."""
    assert handles([entry(number) for number in range(5)], most=2) == [0, 1]


def test_an_empty_queue_has_no_batch():
    """Nothing to do is no error."""
    assert handles([]) == []


def test_beams_are_for_temperature_zero():
    """Above it the best of several samples is taken from the whole vocabulary, as in openai-whisper."""
    wanted = options(beam_size=5, patience=2.0, best_of=3)

    cold, warm = settings_for(wanted, 0.0, 0, ()), settings_for(wanted, 0.4, 0, ())
    assert (cold.beam_size, cold.patience, cold.num_hypotheses, cold.sampling_temperature) == (5, 2.0, 1, 1.0)
    assert (warm.beam_size, warm.patience, warm.num_hypotheses, warm.sampling_temperature) == (1, 1.0, 3, 0.4)
    assert (cold.sampling_topk, warm.sampling_topk) == (1, 0)


def test_the_arguments_are_all_but_the_prompt():
    """CTranslate2 does not know how long a prompt is meant to be."""
    arguments = settings_for(options(), 0.0, 3, (7,)).arguments()

    assert "words_before" not in arguments
    assert arguments["suppress_tokens"] == (7,)
    assert arguments["length_penalty"] == 1.0


def test_the_last_attempt_counts_if_it_is_good():
    """Whatever the earlier ones were."""
    attempts = [attempt(avg_logprob=-2.0), attempt(avg_logprob=-0.5)]

    assert best_attempt(attempts, options(logprob_threshold=-1.0)) is attempts[1]


def test_of_failed_attempts_the_most_probable_counts_that_does_not_repeat_itself():
    """A loop is very sure of itself."""
    attempts = [attempt(avg_logprob=-0.1, compression_ratio=9.0), attempt(avg_logprob=-1.5), attempt(avg_logprob=-2.0)]
    wanted = options(logprob_threshold=-1.0, compression_ratio_threshold=2.4)

    assert best_attempt(attempts, wanted) is attempts[1]


def test_where_all_repeat_themselves_the_most_probable_counts():
    """Some text is better than none; its quality is said."""
    attempts = [attempt(avg_logprob=-0.4, compression_ratio=9.0), attempt(avg_logprob=-0.2, compression_ratio=8.0)]

    assert best_attempt(attempts, options(compression_ratio_threshold=2.4)) is attempts[1]


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
def test_a_compute_type_is_one_that_the_device_has(asked, device, supported, name):
    """Auto is the fastest in hardware, anything else is what was asked for."""
    assert compute_type(asked, device, supported) == name


def test_a_compute_type_that_the_device_lacks_stops_the_start():
    """It would run, many times slower; the hint names those that do not."""
    with pytest.raises(BootError, match="cpu cannot compute in fp16") as caught:
        compute_type("fp16", "cpu", CPU)

    assert "fp32, int8" in caught.value.hint


@pytest.mark.parametrize(
    ("asked", "gpus", "found"),
    [("auto", 0, ("cpu", 0)), ("auto", 2, ("cuda", 0)), ("cuda:1", 2, ("cuda", 1)), ("cpu", 2, ("cpu", 0))],
)
def test_the_device_asked_for_is_taken(asked, gpus, found):
    """Auto is the first GPU, else the processor."""
    assert find_device(asked, gpus) == found


def test_a_gpu_that_is_not_there_stops_the_start():
    """With what CTranslate2 sees, which may differ from what torch sees."""
    with pytest.raises(BootError, match="'cuda:2' is not there: CTranslate2 sees 1"):
        find_device("cuda:2", 1)


def test_weights_that_are_no_model_stop_the_start(tmp_path):
    """A damaged directory is named, and the network is not asked for another."""
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")

    with pytest.raises(BootError, match="cannot load"):
        create(EngineOptions("faster-whisper", str(tmp_path), tmp_path, device="cpu", threads=1))


def test_without_the_package_the_hint_says_how_to_get_it(monkeypatch):
    """The engine is an extra."""
    monkeypatch.delitem(sys.modules, "whisperd.engine.faster_whisper", raising=False)
    monkeypatch.setitem(sys.modules, "ctranslate2", None)  # importing it raises ModuleNotFoundError

    with pytest.raises(BootError, match="not installed") as caught:
        create(EngineOptions("faster-whisper", "base", Path("nowhere"), device="cpu", threads=1))

    assert "whisperd[faster-whisper]" in caught.value.hint
