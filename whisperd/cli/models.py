"""`whisperd models`: list, fetch, import and verify weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.core.errors import EXIT_OK
from whisperd.engine.weights import catalogue
from whisperd.engine.weights.find import installed
from whisperd.settings import config

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def main(arguments: argparse.Namespace) -> int:
    """Dispatch to the verb."""
    directory = config.load(arguments.config, root=arguments.root).models_directory
    match arguments.verb:
        case "list":
            _list(directory)
        case "fetch":
            _fetch(arguments.name, directory)
        case "import":
            from whisperd.engine.weights.convert import import_directory  # noqa: PLC0415  # loads torch

            weights = import_directory(arguments.directory, arguments.name, directory)
            print(f"{weights.model}: imported to {weights.paths[0]}")
        case "verify":
            from whisperd.engine.weights.find import verify  # noqa: PLC0415

            weights = verify(arguments.name, directory)
            print(f"{weights.model}: as it should be, SHA-256 {weights.sha256}")
    return EXIT_OK


def _list(directory: Path) -> None:
    here = installed(directory)
    print("installed:")
    for weights in here:
        print(f"  {weights.model:16} {weights.source}")
    if not here:
        print("  none")
    print(f"to fetch into {directory}:")
    names = {weights.model for weights in here}
    print("  " + " ".join(name for name in catalogue.OFFICIAL if name not in names))


def _fetch(name: str, directory: Path) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn  # noqa: PLC0415

    from whisperd.engine.weights.fetch import fetch  # noqa: PLC0415

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(name, total=None)
        weights = fetch(name, directory, lambda done, total: progress.update(task, completed=done, total=total or None))
    print(f"{weights.model}: in {weights.paths[0]}")
