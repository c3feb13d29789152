"""Which models keep up with speech on this machine: measured where they are installed, reckoned where they are not."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from whisperd.bench import floor
from whisperd.bench.daemon import Daemon
from whisperd.bench.systems import Conversation, peer_settings
from whisperd.core.errors import BootError
from whisperd.engine.weights.catalogue import OFFICIAL, canonical
from whisperd.engine.weights.find import find, find_ct2

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisperd.bench.corpus import ReferenceRecording
    from whisperd.settings.config import Config


@dataclass(frozen=True, slots=True)
class ModelSpeed:
    """How fast one model is here, through the daemon.

    Attributes:
        speed: audio seconds per second; the best round.
        measured: False: reckoned from another model by the operations of both.
        peak_bytes: of supervisor and workers; None if reckoned.
        floor: the speed at which this machine's matrix products alone would run; None if nobody knows the dimensions.
    """

    model: str
    speed: float
    measured: bool
    peak_bytes: int | None
    floor: float | None

    @property
    def streams(self) -> int:
        """How many people may speak at once without a queue that grows."""
        return int(self.speed)


@dataclass(frozen=True, slots=True)
class Machine:
    """What it is, and how fast it multiplies matrices: operations per second by type."""

    processor: str
    cores: int
    rates: dict[str, float]


def look_at_machine(settings: Config) -> Machine:
    """Name and count of processors, and matrix products in a process of their own.

    Raises:
        WhisperdError: the device cannot be used.
    """
    with Conversation(peer_settings("gemm", settings)) as child:
        rates = child.loaded().rates
    return Machine(_processor(), len(os.sched_getaffinity(0)), rates)


def measure_models(
    settings: Config, recording: ReferenceRecording, machine: Machine, rounds: int, show: Callable[[str], None]
) -> list[ModelSpeed]:
    """The configured model and all others that are installed, one after the other; then the rest of OpenAI's, reckoned.

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
    known = {canonical(one.model) for one in measured}
    return sorted(
        [*measured, *(one for name in OFFICIAL if name not in known and (one := reckon(name, measured, rate)))],
        key=lambda one: -one.speed,
    )


def reckon(model: str, measured: list[ModelSpeed], rate: float) -> ModelSpeed | None:
    """From the measured model of the most similar size; None if none of them has known dimensions."""
    size = floor.dimensions(model)
    known = [(one, found) for one in measured if (found := floor.dimensions(one.model))]
    if size is None or not known:
        return None
    wanted = floor.operations(size)
    nearest, its = min(
        ((one, floor.operations(found)) for one, found in known), key=lambda pair: abs(math.log(pair[1] / wanted))
    )
    return ModelSpeed(model, nearest.speed * its / wanted, False, None, _floor(model, rate))


def is_here(model: str, settings: Config) -> bool:
    """Whether the configured engine has weights for it."""
    if settings.engine == "scripted":
        return False
    try:
        (find_ct2 if settings.engine == "faster-whisper" else find)(model, settings.models_directory)
    except BootError:
        return False
    return True


def _floor(model: str, rate: float) -> float | None:
    size = floor.dimensions(model)
    return floor.fastest_speed(size, rate) if size else None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "unknown processor"
