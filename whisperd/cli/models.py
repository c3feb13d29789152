"""`whisperd models`: lists, fetches, imports and verifies weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from whisperd.cli import add_spool_arguments
from whisperd.core.errors import EXIT_OK, BootError
from whisperd.engine.weights import speakers
from whisperd.engine.weights.find import OFFICIAL, installed
from whisperd.settings import config

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `models` and their options."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    add_spool_arguments(verbs.add_parser("list", help="list installed models and those that can be fetched"))

    fetch = verbs.add_parser("fetch", help="download a model from OpenAI, or `speakers`, the weights of diarization")
    add_spool_arguments(fetch)
    fetch.add_argument("name", metavar="NAME")

    bring = verbs.add_parser("import", help="convert a CTranslate2 or Hugging Face safetensors directory")
    add_spool_arguments(bring)
    bring.add_argument("directory", type=Path, metavar="DIRECTORY")
    bring.add_argument("name", metavar="NAME", help="the name of the model on this machine")

    verify = verbs.add_parser("verify", help="check weights by their SHA-256")
    add_spool_arguments(verify)
    verify.add_argument("name", metavar="NAME")


def main(arguments: argparse.Namespace) -> int:
    """Run the verb."""
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
            if arguments.name == speakers.NAME:
                print(f"{speakers.NAME}: unchanged, from {speakers.verify_speakers(directory).source}")
                return EXIT_OK
            from whisperd.engine.weights.find import verify  # noqa: PLC0415

            weights = verify(arguments.name, directory)
            print(f"{weights.model}: unchanged, SHA-256 {weights.sha256}")
    return EXIT_OK


def _list(directory: Path) -> None:
    here = installed(directory)
    print("installed:")
    for weights in here:
        print(f"  {weights.model:16} {weights.source}")
    try:
        print(f"  {speakers.NAME:16} {speakers.find_speakers(directory).source}")
        names = {speakers.NAME}
    except BootError:
        names = set()
    if not here and not names:
        print("  none")
    print(f"can be fetched into {directory}:")
    names |= {weights.model for weights in here}
    print("  " + " ".join(name for name in (*OFFICIAL, speakers.NAME) if name not in names))


def _fetch(name: str, directory: Path) -> None:
    if name == speakers.NAME:
        print(f"{name}: in {speakers.fetch_speakers(directory).segmentation.parent}")
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn  # noqa: PLC0415

    from whisperd.engine.weights.fetch import fetch  # noqa: PLC0415

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(name, total=None)
        weights = fetch(name, directory, lambda done, total: progress.update(task, completed=done, total=total or None))
    print(f"{weights.model}: in {weights.paths[0]}")
