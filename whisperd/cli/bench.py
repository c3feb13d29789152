"""`whisperd bench`: measures this machine, or compares whisperd with other programs on your recordings."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisperd.bench import machine, report
from whisperd.bench.comparison import compare_systems, figures_of
from whisperd.bench.daemon import Daemon
from whisperd.bench.recordings import find_recordings, make_sample
from whisperd.bench.systems import Peer, System, missing
from whisperd.core.errors import EXIT_OK
from whisperd.media.ffmpeg import find_ffmpeg
from whisperd.settings import config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

    from whisperd.settings.config import Config


PEERS = ("openai-whisper", "faster-whisper", "whisper.cpp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bench`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration to measure (root stays untouched)")
    parser.add_argument(
        "--audio", type=Path, metavar="DIR", help="recordings, each x.ogg with its words in x.txt (default: a sample)"
    )
    parser.add_argument(
        "--against", type=_peers, default=(), metavar="LIST", help="of openai-whisper,faster-whisper,whisper.cpp"
    )
    parser.add_argument("--rounds", type=int, choices=range(1, 100), metavar="N", help="(default: 3, alone 1)")
    parser.add_argument("--model", metavar="NAME")
    parser.add_argument("--language", metavar="CODE", help="of all recordings (default: detected)")
    parser.add_argument("--beam-size", type=int, metavar="N", help="(default: as configured)")
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
    _show("measuring; leave the machine alone meanwhile")
    found = machine.look_at_machine(settings)
    with tempfile.TemporaryDirectory(prefix="whisperd-bench-") as scratch:
        sample = None
        if not arguments.audio:
            sample = make_sample(Path(scratch), find_ffmpeg(settings.media.ffmpeg))
            # The sample repeats one sentence, which this threshold would take for a model that loops.
            plain = settings.transcription.model_copy(update={"compression_ratio_threshold": None})
            settings = settings.model_copy(update={"transcription": plain})
        if sample and not arguments.against:
            models = machine.measure_models(settings, sample, found, arguments.rounds or 1, _show)
            lines = ["estimate: from the measured model of the nearest size, by the operations that both need"]
            _give(arguments, found, settings, report.models_table(models), lines, models=models)
            return EXIT_OK
        recordings = [sample] if sample else find_recordings(arguments.audio)
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
    lines = report.comparison_lines(figures, absent, **about)
    _give(arguments, found, settings, report.comparison_table(figures), lines, figures=figures, absent=absent, **about)
    return EXIT_OK


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
    found: machine.Machine,
    settings: Config,
    table: Table,
    lines: Iterable[str],
    **figures: Any,
) -> None:
    if arguments.json:
        print(json.dumps(report.document(found, settings.model, **figures), indent=2, ensure_ascii=False))
        return
    from rich.console import Console  # noqa: PLC0415  # not for programs

    Console().print(table)
    print("\n".join((*lines, *report.machine_lines(found, settings.model))))


def _show(line: str) -> None:
    print(f"whisperd bench: {line}", file=sys.stderr, flush=True)
