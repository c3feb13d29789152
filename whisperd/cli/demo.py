"""`whisperd demo`: makes a new spool, transcribes the sample recording in it and prints the transcript."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from whisperd.core import events, process
from whisperd.daemon.supervisor import Supervisor
from whisperd.listeners import logs
from whisperd.settings import config
from whisperd.spool.layout import Layout

if TYPE_CHECKING:
    import argparse

SAMPLE = "jfk.ogg"  # the inaugural address of John F. Kennedy, 20 January 1961: public domain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `demo`."""
    parser.add_argument("--directory", type=Path, default=Path("whisperd-demo"), metavar="DIR")


def main(arguments: argparse.Namespace) -> int:
    """Run the daemon once over the new spool and print the transcript."""
    root = arguments.directory.absolute()
    settings = config.load(root=root, intake={"settle_seconds": 1.0})
    layout = Layout(root)
    layout.create()
    sample = resources.files("whisperd") / "samples" / SAMPLE
    with resources.as_file(sample) as path:
        shutil.copy(path, layout.inbox / SAMPLE)
    print(f"whisperd demo: {SAMPLE} is in {layout.inbox}; the daemon starts, transcribes it and ends", flush=True)
    process.set_up_logging(settings.log_level)
    finished: list[events.JobFinished] = []
    emitter = events.Emitter()
    emitter.subscribe(logs.log_event)
    emitter.subscribe(lambda event: finished.append(event) if isinstance(event, events.JobFinished) else None)
    code = Supervisor(settings, reload=lambda: settings, emitter=emitter, once=True).run()
    if not finished:
        return code
    place = finished[-1].job.place
    print(f"\n{(layout.outbox / place).with_suffix('.txt').read_text('utf-8').strip()}\n")
    for path in sorted(path for top in (layout.outbox, layout.done) for path in top.rglob("*") if path.is_file()):
        print(f"  {path.relative_to(root.parent)}")
    print(f"\nTry your own: copy a recording into {layout.inbox} and run\n  whisperd run --root {root}")
    return code
