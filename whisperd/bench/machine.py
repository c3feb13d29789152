"""Measures this machine: how fast it multiplies matrices and which models keep up with speech on it.

Models that are not installed are estimated from those that are, by the seconds that layers of both sizes take here. The floor
is the speed at which this machine's matrix products alone would run; no program can be faster.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd.bench.programs import SIZES, TOKENS_PER_WINDOW, Dimensions
from whisperd.bench.systems import Conversation, Daemon, peer_settings
from whisperd.core.errors import BootError
from whisperd.core.process import processor_name
from whisperd.engine.weights.find import OFFICIAL, canonical, find, find_ct2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from whisperd.bench.recordings import ReferenceRecording
    from whisperd.settings.config import Config


WINDOW_SECONDS = 30
_CONTEXT = 1500  # features of a window


def dimensions(model: str) -> Dimensions | None:
    """The dimensions of one of OpenAI's models; None for any other. An `.en` has one token less, which does not matter here."""
    return SIZES.get(_size_name(model))


def _size_name(model: str) -> str:
    return canonical(model).removesuffix(".en")


def operations(size: Dimensions) -> float:
    """Count the operations of one window of 30 s, greedy: encoder, cross-attention keys and values, and 100 steps; a multiply-add is two."""
    n, width = _CONTEXT, size.n_state
    convolutions = 6 * n * (2 * size.n_mels * width + width**2)
    encoder = size.n_audio_layer * (24 * n * width**2 + 4 * n**2 * width) + convolutions
    keys = size.n_text_layer * 4 * n * width**2
    step = size.n_text_layer * (28 * width**2 + 4 * n * width) + 2 * size.n_vocab * width
    return float(encoder + keys + TOKENS_PER_WINDOW * step)


def fastest_speed(size: Dimensions, operations_per_second: float) -> float:
    """The speed, in audio seconds per second, if nothing but these operations took time."""
    return WINDOW_SECONDS * operations_per_second / operations(size)


@dataclass(frozen=True, slots=True)
class ModelSpeed:
    """How fast one model is here, through the daemon.

    Attributes:
        speed: audio seconds per second; the best round.
        measured: False: estimated from another model by the operations of both.
        peak_bytes: of supervisor and workers; None if estimated.
        floor: the speed at which this machine's matrix products alone would run; None if its dimensions are not known.
    """

    model: str
    speed: float
    measured: bool
    peak_bytes: int | None
    floor: float | None

    @property
    def streams(self) -> int:
        """How many people can speak at once without a growing queue."""
        return int(self.speed)


@dataclass(frozen=True, slots=True)
class Machine:
    """The processor of this machine, and how many operations per second its matrix products reach by type."""

    processor: str
    cores: int
    rates: dict[str, float]


def look_at_machine(settings: Config) -> Machine:
    """Read the name and number of processors, and measure matrix products in a separate process.

    Raises:
        WhisperdError: the device cannot be used.
    """
    with Conversation(peer_settings("gemm", settings)) as child:
        rates = child.loaded().rates
    return Machine(processor_name(), len(os.sched_getaffinity(0)), rates)


def measure_models(
    settings: Config, recording: ReferenceRecording, machine: Machine, rounds: int, show: Callable[[str], None]
) -> list[ModelSpeed]:
    """Measure the configured model and all others that are installed, and estimate the rest of OpenAI's; the fastest first.

    Raises:
        WhisperdError: the daemon did not start, or failed on the recording.
    """
    rate = max(machine.rates.values())
    measured = []
    for model in dict.fromkeys([settings.model, *(name for name in OFFICIAL if is_here(name, settings))]):
        daemon = Daemon(settings.model_copy(update={"model": model}))
        runs = [daemon.run([recording]) for _ in range(rounds)]
        speed = max(run.durations[0] / run.seconds for run in runs)
        measured.append(ModelSpeed(model, speed, True, max(run.peak_bytes for run in runs), _floor(model, rate)))
        show(f"{model}: x{speed:.1f}")
    show("timing layers of all sizes")
    with Conversation(peer_settings("layers", settings)) as child:
        seconds = child.loaded().rates
    known = {canonical(one.model) for one in measured}
    estimates = (estimate(name, measured, seconds, rate) for name in OFFICIAL if name not in known)
    return sorted([*measured, *(one for one in estimates if one)], key=lambda one: -one.speed)


def estimate(model: str, measured: list[ModelSpeed], seconds: Mapping[str, float], rate: float) -> ModelSpeed | None:
    """Estimate the speed of a model from the measured one of the most similar size.

    Args:
        model: one of OpenAI's names.
        measured: models that were run here.
        seconds: that the layers of one window take here, by the names of `SIZES`.
        rate: operations per second, for the floor.

    Returns:
        None where no measured model is one of OpenAI's.
    """
    wanted = seconds.get(_size_name(model))
    known = [(one, found) for one in measured if (found := seconds.get(_size_name(one.model)))]
    if wanted is None or not known:
        return None
    nearest, its = min(known, key=lambda pair: abs(math.log(pair[1] / wanted)))
    return ModelSpeed(model, nearest.speed * its / wanted, False, None, _floor(model, rate))


def is_here(model: str, settings: Config) -> bool:
    """Whether the configured engine has weights for the model."""
    if settings.engine == "scripted":
        return False
    try:
        (find_ct2 if settings.engine == "faster-whisper" else find)(model, settings.models_directory)
    except BootError:
        return False
    return True


def _floor(model: str, rate: float) -> float | None:
    size = dimensions(model)
    return fastest_speed(size, rate) if size else None
