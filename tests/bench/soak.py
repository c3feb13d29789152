"""The real daemon under load and faults, for a number of jobs or for as long as it is told; zero lost, zero doubled.

    python tests/bench/soak.py --jobs 5000
    python tests/bench/soak.py --seconds 28800 --report soak.json
    python tests/bench/soak.py --jobs 300 --engine openai-whisper

Uploads of all kinds come faster than they are done, by several ways, into many folders; meanwhile processes are killed,
stopped and stalled, the engine misbehaves and the disk fills up (as root: it needs a filesystem of its own). Every 1,000
jobs all must come to rest, and every upload is held against its due end; in every other thousand no process is killed, so
that growth can be told from warming up. Exit status 1 if a rule was broken: the seed that is printed then makes the same
choices again.
"""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.soak.report import summary, table
from support.soak.run import SETTINGS, Plan, ground_for


def main() -> int:
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without the end of the daemon and its disk
    plan = Plan(
        arguments.seed,
        arguments.jobs,
        arguments.seconds,
        arguments.engine,
        arguments.jobs_per_fault,
        frozenset(arguments.only),
    )
    say = Console(stderr=True)
    say.print(f"seed {plan.seed}")
    with (
        tempfile.TemporaryDirectory(prefix="whisperd-soak-") as place,
        ground_for(plan, Path(place), say.print) as soak,
    ):
        soak.finish()
        figures = summary(soak)
    if arguments.report:
        arguments.report.write_text(json.dumps(figures, indent=2))
    Console().print(table(figures), markup=False)
    return 1 if figures["problems"] else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--jobs", type=int)
    length.add_argument("--seconds", type=float)
    parser.add_argument("--engine", choices=SETTINGS, default="scripted")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--jobs-per-fault", type=int, default=20)
    parser.add_argument("--only", action="append", default=[], metavar="FAULT", help="may be given several times")
    parser.add_argument("--report", type=Path, metavar="FILE.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
