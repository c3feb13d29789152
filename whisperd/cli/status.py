"""`whisperd status`: shows what runs, waits and has failed; `--watch` shows it live."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

from whisperd.cli import add_spool_arguments
from whisperd.cli.report import gather
from whisperd.core.errors import EXIT_OK, SpoolError
from whisperd.intake.ignore import Ignore
from whisperd.settings import config
from whisperd.spool.layout import Layout

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from rich.console import Console

WATCH_SECONDS = 1.0
GATHER_SHARE = 0.2  # of the time is spent on reading the disk, at most: a spool may have a hundred thousand files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `status`."""
    add_spool_arguments(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--watch", action="store_true", help="keep showing it until Ctrl-C")


def main(arguments: argparse.Namespace) -> int:
    """Show the spool once, or until Ctrl-C."""
    settings = config.load(arguments.config, root=arguments.root)
    layout, ignore = Layout(settings.root), Ignore(settings.intake.ignore)

    def report() -> dict[str, Any]:
        try:
            return gather(layout, ignore, wanted_bytes=settings.intake.min_free)
        except OSError as error:
            hint = "check that this is the root of a spool and that you may read it"
            raise SpoolError(f"cannot read {error.filename}: {error.strerror}", hint=hint) from error

    show = _json if arguments.json else _screen
    if not arguments.watch:
        show(report(), None)
        return EXIT_OK
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the terminal is restored before the end
    try:
        _watch(report, show)
    except KeyboardInterrupt:
        return EXIT_OK
    raise AssertionError


def _json(report: dict[str, Any], _: Console | None) -> None:
    print(json.dumps(report), flush=True)


def _screen(report: dict[str, Any], console: Console | None) -> None:
    from rich.console import Console  # noqa: PLC0415  # scripts want --json, and quickly

    from whisperd.cli.screen import render  # noqa: PLC0415

    console = console or Console(highlight=False)
    console.print(render(report, width=console.width))


def _watch(report: Callable[[], dict[str, Any]], show: Callable[[dict[str, Any], Console | None], None]) -> None:
    """Show every change until Ctrl-C: on the alternate screen of a terminal, in a pipe each state once."""
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    from whisperd.cli.screen import render  # noqa: PLC0415

    console = Console(highlight=False)
    if show is _json or not console.is_terminal or console.is_dumb_terminal:
        last = None
        while True:
            pause, now = _timed(report)
            if now != last:
                last = now
                show(now, console)
                console.file.flush()
            time.sleep(pause)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            pause, now = _timed(report)
            live.update(render(now, width=console.width, height=console.height), refresh=True)
            time.sleep(pause)


def _timed(report: Callable[[], dict[str, Any]]) -> tuple[float, dict[str, Any]]:
    started = time.monotonic()
    now = report()
    return max(WATCH_SECONDS, (time.monotonic() - started) / GATHER_SHARE), now
