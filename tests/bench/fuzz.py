"""Feeds damaged recordings to whisperd's own parsers and to the real ffmpeg behind them, for as long as one wants.

    python tests/bench/fuzz.py --seconds 600 --seed 1            # half of the time each
    python tests/bench/fuzz.py --seconds 60 --parts parsers      # the parsers alone, coverage-guided
    python tests/bench/fuzz.py --keep /tmp/findings              # where inputs that break something are written

Prints how many inputs were tried and what came of them; ends with status 1 if anything broke. The same seed gives the
same inputs to the parsers, and to ffmpeg as far as the time goes.
"""

# ruff: noqa: E402, I001, T201 - a script: it finds its tree first, and prints
from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
from support import fuzz
from support.mutate import Hang
from whisperd.media.ffmpeg import find_ffmpeg


@dataclass
class Row:
    """One line of the table."""

    target: str
    inputs: int = 0
    crashes: int = 0
    hangs: int = 0
    more: str = ""


class Findings:
    """What broke something, kept once for each kind of error."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._known: set[str] = set()

    def add(self, row: Row, data: bytes, error: Exception) -> None:
        """Count it, say it, and write the input down."""
        row.hangs += isinstance(error, Hang)
        row.crashes += not isinstance(error, Hang)
        what = f"{row.target}: {type(error).__name__}: {error}"
        if what in self._known:
            return
        self._known.add(what)
        print(what, f"({len(data)} bytes)", file=sys.stderr)
        if self._directory is not None:
            self._directory.mkdir(parents=True, exist_ok=True)
            (self._directory / f"{len(self._known):03}").write_bytes(data)


def fuzz_parsers(directory: Path, seed: int, seconds: float, findings: Findings) -> list[Row]:
    """The parsers, until the time is over."""
    parsers = fuzz.Parsers(fuzz.recordings(directory, 1.0), seed)
    rows = {name: Row(name) for name in parsers.guided}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        name, data, error = parsers.step()
        rows[name].inputs += 1
        if error is not None:
            findings.add(rows[name], data, error)
    for name, guided in parsers.guided.items():
        rows[name].more = f"{guided.ways} ways through the code, {len(guided.corpus)} inputs kept"
    return list(rows.values())


def fuzz_decoding(directory: Path, ffmpeg: Path, seed: int, seconds: float, findings: Findings) -> list[Row]:
    """Ffmpeg, until the time is over."""
    (files := directory / "files").mkdir()
    decoding = fuzz.Decoding(fuzz.recordings(directory, 1.0), ffmpeg, files, seed)
    row = Row("ffmpeg")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data, error = decoding.step()
        row.inputs += 1
        if error is not None:
            findings.add(row, data, error)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in decoding.outcomes.most_common())
    row.more = f"{outcomes}; the slowest took {decoding.slowest_seconds:.1f} s"
    return [row]


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="default: another each time")
    parser.add_argument("--parts", choices=("both", "parsers", "ffmpeg"), default="both")
    parser.add_argument("--ffmpeg", type=Path, help="default: the one that whisperd would use")
    parser.add_argument("--keep", type=Path, help="a directory for inputs that break something")
    parser.add_argument("--json", action="store_true", help="the sums of the table, on the last line")
    arguments = parser.parse_args()
    findings = Findings(arguments.keep)
    share = arguments.seconds / (2 if arguments.parts == "both" else 1)
    rows: list[Row] = []
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.parts != "ffmpeg":
            rows += fuzz_parsers(Path(scratch), arguments.seed, share, findings)
        if arguments.parts != "parsers":
            rows += fuzz_decoding(Path(scratch), find_ffmpeg(arguments.ffmpeg), arguments.seed, share, findings)
    print(f"{'target':14} {'inputs':>9} {'crashes':>8} {'hangs':>6}")
    for row in rows:
        print(f"{row.target:14} {row.inputs:9,} {row.crashes:8} {row.hangs:6}  {row.more}")
    if arguments.json:
        print(json.dumps({name: sum(getattr(row, name) for row in rows) for name in ("inputs", "crashes", "hangs")}))
    return 1 if any(row.crashes or row.hangs for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
