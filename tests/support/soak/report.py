"""What a run has shown, as a value for programs and as a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from support.soak.run import Soak

PERCENTILES = (50, 90, 99, 100)
LOST, DOUBLED = ("lost:",), ("doubled:", "nobody uploaded this:")  # as `check_spool` says it


def summary(soak: Soak) -> dict[str, Any]:
    """All figures of a run that has ended."""
    lines = soak.gauges.lines()
    growth = {
        gauge: {"per_1000_jobs": line.slope, "error": line.error, "limit": line.limit, "flat": line.is_flat}
        for gauge, line in lines.items()
    }
    growing = [f"{gauge} grows" for gauge, line in lines.items() if not line.is_flat]
    lost, doubled = (sum(problem.startswith(kind) for problem in soak.problems) for kind in (LOST, DOUBLED))
    return {
        "seed": soak.plan.seed,
        "engine": soak.plan.engine,
        "seconds": soak.seconds,
        "jobs": sum(soak.book.kinds.values()),
        "ends": dict(soak.book.ends),
        "uploads": dict(soak.book.kinds),
        "ways": dict(soak.ways),
        "faults": soak.injected,
        "starts": soak.ground.starts,
        "lost": lost,
        "doubled": doubled,
        "wrong": len(soak.problems) - lost - doubled,
        "growing": growing,
        "problems": [*soak.problems, *growing],
        "latency_seconds": percentiles(soak.book.latencies),
        "queue_seconds": percentiles(soak.book.waits),
        "growth": growth,
        "peaks": soak.gauges.peaks,
    }


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """By nearest rank; empty for no values."""
    ranked = sorted(values)
    named = {percent: "max" if percent == 100 else f"p{percent}" for percent in PERCENTILES}
    return {name: ranked[-(-len(ranked) * percent // 100) - 1] for percent, name in named.items() if ranked}


def table(figures: dict[str, Any]) -> Table:
    """The figures to look at."""
    shown = Table(title=f"{figures['engine']}, seed {figures['seed']}", show_header=False)
    for row in _rows(figures):
        shown.add_row(*row)
    return shown


def _rows(figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    seconds = figures["seconds"]
    yield "jobs", f"{figures['jobs']} in {seconds:.0f} s, {figures['jobs'] / max(seconds, 1e-9):.1f} a second"
    yield "uploads", _counts(figures["uploads"])
    yield "ways", _counts(figures["ways"])
    yield "ends", _counts(figures["ends"])
    yield "faults", f"{sum(figures['faults'].values())}: {_counts(figures['faults'])}"
    yield "lost, doubled, wrong", f"{figures['lost']}, {figures['doubled']}, {figures['wrong']}"
    yield "upload complete -> transcript", _times(figures["latency_seconds"])
    yield "claim -> first attempt", _times(figures["queue_seconds"])
    for gauge, value in figures["peaks"].items():
        growth = figures["growth"].get(gauge)
        slope = f", {growth['per_1000_jobs']:+.1f} ± {growth['error']:.1f} per 1000 jobs" if growth else ""
        yield gauge, f"at most {value:.0f}{slope}"
    for problem in figures["problems"]:
        yield "PROBLEM", problem


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _times(times: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in times.items())
