"""`whisperd bench`: measures this machine, or compares whisperd with other programs on your recordings."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from whisperd.bench.comparison import compare_systems, figures_of
from whisperd.bench.diarization import measure_diarization
from whisperd.bench.machine import dimensions, fastest_speed, look_at_machine, measure_models, operations
from whisperd.bench.recordings import find_conversations, find_recordings, make_sample
from whisperd.bench.systems import INSTRUCTION_SETS, Daemon, Peer, System, missing
from whisperd.core.display import mebibytes
from whisperd.core.errors import EXIT_OK, WhisperdError
from whisperd.engine.weights.speakers import verify_speakers
from whisperd.media.ffmpeg import find_ffmpeg
from whisperd.settings import config

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from whisperd.bench.comparison import Figures, Spread
    from whisperd.bench.diarization import DiarizationFigures
    from whisperd.bench.machine import Machine, ModelSpeed
    from whisperd.settings.config import Config


PEERS = ("openai-whisper", "faster-whisper", "whisper.cpp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bench`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration to measure (root stays untouched)")
    parser.add_argument(
        "--audio",
        type=Path,
        metavar="DIR",
        help="recordings, each x.ogg with its words in x.txt, or who speaks when in x.rttm (default: a sample)",
    )
    parser.add_argument(
        "--against", type=_peers, default=(), metavar="LIST", help="of openai-whisper,faster-whisper,whisper.cpp"
    )
    parser.add_argument("--rounds", type=int, choices=range(1, 100), metavar="N", help="(default: 3, alone 1)")
    parser.add_argument("--model", metavar="NAME")
    parser.add_argument("--language", metavar="CODE", help="of all recordings (default: detected)")
    parser.add_argument("--beam-size", type=int, metavar="N", help="(default: as configured)")
    parser.add_argument(
        "--isa",
        choices=tuple(INSTRUCTION_SETS),
        help="hold all systems, except whisper.cpp, to the instructions of a smaller processor",
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def _peers(text: str) -> tuple[str, ...]:
    """Programs to compare with, each once."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if unknown := [name for name in names if name not in PEERS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(PEERS)}")
    return names


def main(arguments: argparse.Namespace) -> int:
    """Measure, and print a table, or with `--json` a document; progress goes to stderr."""
    settings = _settings(arguments)
    os.environ.update(INSTRUCTION_SETS.get(arguments.isa, {}))  # for the processes that it starts
    _show("measuring; leave the machine alone meanwhile")
    found = look_at_machine(settings)
    if arguments.isa:
        found = replace(found, processor=f"{found.processor}, held to {arguments.isa}")
    with tempfile.TemporaryDirectory(prefix="whisperd-bench-") as scratch:
        sample = None
        if not arguments.audio:
            sample = make_sample(Path(scratch), find_ffmpeg(settings.media.ffmpeg))
            # The sample repeats one sentence, which this threshold would take for a model that loops.
            plain = settings.transcription.model_copy(update={"compression_ratio_threshold": None})
            settings = settings.model_copy(update={"transcription": plain})
        if sample and not arguments.against:
            models = measure_models(settings, sample, found, arguments.rounds or 1, _show)
            lines = [
                "estimate: from the measured model of the nearest size, by the seconds that layers of both sizes take here"
            ]
            _give(arguments, found, settings, models_table(models), lines, models=models)
            return EXIT_OK
        conversations = find_conversations(arguments.audio) if arguments.audio else []
        diarization = _diarization(conversations, settings) if conversations else None
        spoken = diarization_lines(diarization) if diarization else []
        try:
            recordings = [sample] if sample else find_recordings(arguments.audio)
        except WhisperdError:
            if diarization is None:
                raise
            _give(arguments, found, settings, None, spoken, diarization=diarization)
            return EXIT_OK
        absent = {name: why for name in arguments.against if (why := missing(name, settings))}
        systems: list[System] = [
            Daemon(settings),
            *(Peer(name, settings) for name in arguments.against if name not in absent),
        ]
        rounds = arguments.rounds or 3
        runs = compare_systems(systems, recordings, rounds, _show)
    figures = figures_of(runs, recordings, settings.transcription.language)
    seconds = sum(runs.runs["whisperd"][0].durations)
    absent |= runs.broken
    about = {"recordings": len(recordings), "audio_seconds": round(seconds, 2), "rounds": rounds}
    lines = [*comparison_lines(figures, absent, **about), *spoken]
    table = comparison_table(figures)
    _give(arguments, found, settings, table, lines, figures=figures, absent=absent, diarization=diarization, **about)
    return EXIT_OK


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


def diarization_lines(figures: DiarizationFigures) -> list[str]:
    """Describe how well people were told apart."""
    error, collar = figures.error, figures.error_with_collar
    parts = (("missed", error.missed), ("false alarm", error.false_alarm), ("confusion", error.confusion))
    shares = (
        ", ".join(f"{name} {100 * seconds / error.speech:.1f} %" for name, seconds in parts) if error.speech else ""
    )
    size = f"{figures.conversations} conversations, {figures.audio_seconds:.0f} s"
    speed = figures.audio_seconds / max(figures.seconds, 1e-9)
    return [
        f"diarization of {size}: DER {100 * error.rate:.1f} % ({shares}); {100 * collar.rate:.1f} % with a collar of 0.25 s",
        f"number of people right in {figures.right_numbers} of {figures.conversations}; x{speed:.0f}, without transcribing",
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
    diarization: DiarizationFigures | None = None,
    **about: Any,
) -> dict[str, Any]:
    """Return the figures as plain values; speeds in audio seconds per second, WER and DER in percent, memory in bytes."""
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
        "diarization": None if diarization is None else _people(diarization),
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


def _settings(arguments: argparse.Namespace) -> Config:
    values: dict[str, Any] = config.load(arguments.config).model_dump()
    if arguments.model:
        values["model"] = arguments.model
    for key in ("language", "beam_size"):
        if getattr(arguments, key):
            values["transcription"][key] = getattr(arguments, key)
    return config.validate(values, source="command line")


def _give(
    arguments: argparse.Namespace,
    found: Machine,
    settings: Config,
    table: Table | None,
    lines: Iterable[str],
    **figures: Any,
) -> None:
    if arguments.json:
        print(json.dumps(document(found, settings.model, **figures), indent=2, ensure_ascii=False))
        return
    from rich.console import Console  # noqa: PLC0415  # not for programs

    if table is not None:
        Console().print(table)
    print("\n".join((*lines, *machine_lines(found, settings.model))))


def _show(line: str) -> None:
    print(f"whisperd bench: {line}", file=sys.stderr, flush=True)


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


def _diarization(conversations: Sequence[Path], settings: Config) -> DiarizationFigures:
    from whisperd.diarization.diarize import Diarizer  # noqa: PLC0415  # loads torch

    weights = verify_speakers(settings.models_directory)
    diarizer = Diarizer(weights, settings.engine_options().threads)
    return measure_diarization(conversations, diarizer, settings.diarization, settings.media)


def _people(figures: DiarizationFigures) -> dict[str, Any]:
    error = figures.error
    parts = {"missed": error.missed, "false_alarm": error.false_alarm, "confusion": error.confusion}
    return {
        "conversations": figures.conversations,
        "audio_seconds": round(figures.audio_seconds, 2),
        "der": _percent(error.rate),
        "der_with_collar": _percent(figures.error_with_collar.rate),
        **{name: _percent(seconds / error.speech if error.speech else float("nan")) for name, seconds in parts.items()},
        "right_numbers": figures.right_numbers,
        "seconds": round(figures.seconds, 3),
    }


def _percent(share: float) -> float | None:
    return round(100 * share, 2) if math.isfinite(share) else None


def _spread(spread: Spread) -> dict[str, float]:
    return {"least": round(spread.least, 3), "median": round(spread.median, 3), "most": round(spread.most, 3)}


def _apart(spread: Spread, digits: int) -> str:
    return f"{spread.least:.{digits}f}-{spread.most:.{digits}f}"
