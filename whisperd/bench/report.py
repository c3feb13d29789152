"""Formats the figures of `whisperd bench`: tables for people and a document for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from whisperd.bench.machine import dimensions, fastest_speed, operations
from whisperd.core.display import mebibytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whisperd.bench.comparison import Figures, Spread
    from whisperd.bench.machine import Machine, ModelSpeed


def comparison_table(figures: Sequence[Figures]) -> Table:
    """Make a table with one row per system: the median of the rounds, and in brackets the least and the most."""
    table = Table(title="audio seconds per second (higher is faster)")
    for name in ("system", "speed", "whisperd ahead", "WER", "memory"):
        table.add_column(name, justify="left" if name == "system" else "right", no_wrap=True)
    for one in figures:
        table.add_row(
            one.name,
            f"x{one.speed.median:.1f} ({_apart(one.speed, 1)})",
            f"{one.ahead.median:.2f} ({_apart(one.ahead, 2)})" if one.ahead else "",
            "" if one.errors.rate is None else f"{one.errors.rate:.1f} %",
            mebibytes(one.peak_bytes),
        )
    return table


def comparison_lines(figures: Sequence[Figures], absent: Mapping[str, str], **about: Any) -> list[str]:
    """Describe the systems, and say why others could not be measured."""
    return [
        f"{about['recordings']} recordings, {about['audio_seconds']:.0f} s, {about['rounds']} rounds in turn",
        *(f"{one.name}: {one.about}; loads in {one.load_seconds:.1f} s" for one in figures),
        *(f"{name}: not here: {why}" for name, why in absent.items()),
    ]


def models_table(models: Sequence[ModelSpeed]) -> Table:
    """Make a table with one row per model, the fastest first."""
    table = Table(title="which models keep up with speech here")
    for name in ("model", "speed", "known by", "keeps up", "peak memory", "floor"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for one in models:
        table.add_row(
            one.model,
            f"x{one.speed:.1f}" if one.measured else f"about x{one.speed:.1f}",
            "measured" if one.measured else "estimate",
            f"yes, {one.streams} at once" if one.streams else "no",
            "" if one.peak_bytes is None else mebibytes(one.peak_bytes),
            "" if one.floor is None else f"x{one.floor:.0f}",
        )
    return table


def machine_lines(machine: Machine, model: str) -> list[str]:
    """Describe the machine, and the speed that no program can exceed on it."""
    rates = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in machine.rates.items())
    lines = [f"{machine.processor}, {machine.cores} cores; matrix products: {rates}"]
    if size := dimensions(model):
        work, fastest = operations(size), fastest_speed(size, max(machine.rates.values()))
        lines.append(
            f"floor: a full window of 30 s takes {model} {work / 1e9:.0f} GFLOP, "
            f"which alone would run at x{fastest:.0f} here"
        )
    return lines


def document(
    machine: Machine,
    model: str,
    *,
    figures: Sequence[Figures] = (),
    absent: Mapping[str, str] | None = None,
    models: Sequence[ModelSpeed] = (),
    **about: Any,
) -> dict[str, Any]:
    """Return the figures as plain values; speeds in audio seconds per second, WER in percent, memory in bytes."""
    size = dimensions(model)
    return {
        "schema": 1,
        **about,
        "machine": {
            "processor": machine.processor,
            "cores": machine.cores,
            "operations_per_second": machine.rates,
        },
        "model": model,
        "floor_speed": fastest_speed(size, max(machine.rates.values())) if size else None,
        "systems": [_system(one) for one in figures],
        "not_here": dict(absent or {}),
        "models": [
            {
                "model": one.model,
                "speed": round(one.speed, 2),
                "measured": one.measured,
                "keeps_up": one.streams > 0,
                "peak_bytes": one.peak_bytes,
                "floor_speed": one.floor,
            }
            for one in models
        ],
    }


def _system(one: Figures) -> dict[str, Any]:
    return {
        "name": one.name,
        "about": one.about,
        "speed": _spread(one.speed),
        "whisperd_is_faster_by": _spread(one.ahead) if one.ahead else None,
        "wer": one.errors.rate,
        "wrong_words": one.errors.wrong,
        "words": one.errors.words,
        "peak_bytes": one.peak_bytes,
        "load_seconds": round(one.load_seconds, 2),
    }


def _spread(spread: Spread) -> dict[str, float]:
    return {"least": round(spread.least, 3), "median": round(spread.median, 3), "most": round(spread.most, 3)}


def _apart(spread: Spread, digits: int) -> str:
    return f"{spread.least:.{digits}f}-{spread.most:.{digits}f}"
