"""Prints the table of the README's section Trust anew: how much was tried, and how much of it went wrong.

    python tests/bench/trust.py --seconds 3600

Half of the time goes to the soak with the scripted engine, a quarter to the one with a real model, a quarter to damaged
recordings; the tests of faults run once beside that. `--reports DIR` keeps what each piece reported, and does not run again
what has its report there. Exit status 1 if anything went wrong.
"""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def main() -> int:
    arguments = parse()
    with tempfile.TemporaryDirectory() as scratch:
        reports = arguments.reports or Path(scratch)
        reports.mkdir(exist_ok=True)
        scripted = soak(reports / "scripted.json", arguments, "scripted", 0.5)
        model = soak(reports / "model.json", arguments, "openai-whisper", 0.25)
        damaged = fuzz(reports / "fuzz.json", arguments, 0.25)
        tests, bad_tests = faults(reports / "faults.xml")
    rows = [
        *soak_rows("scripted engine", scripted),
        *soak_rows("tiny.en, batched", model),
        ("tests that break something at a named step", tests, f"{bad_tests} failed"),
        ("damaged recordings", damaged["inputs"], f"{damaged['crashes']} crashes, {damaged['hangs']} hangs"),
    ]
    lines = ["| what | tried | outcome |", "| --- | --- | --- |"]
    sys.stdout.write("\n".join(lines + [f"| {what} | {tried:,} | {outcome} |" for what, tried, outcome in rows]) + "\n")
    wrong = scripted["problems"] + model["problems"]
    return 1 if wrong or bad_tests or damaged["crashes"] or damaged["hangs"] else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--reports", type=Path, metavar="DIR")
    return parser.parse_args()


def soak(report: Path, arguments: argparse.Namespace, engine: str, share: float) -> dict:
    """What a soak of a share of the time has shown."""
    if not report.exists():
        given = ["--seconds", arguments.seconds * share, "--seed", arguments.seed, "--engine", engine]
        run("soak.py", *given, "--report", report)
    return json.loads(report.read_text())


def soak_rows(title: str, figures: dict) -> list[tuple[str, int, str]]:
    """Jobs with what became of them, and faults with how long the jobs took all the same."""
    times = figures["latency_seconds"]
    return [
        (
            f"jobs, {title}",
            figures["jobs"],
            f"{figures['lost']} lost, {figures['doubled']} doubled, {figures['wrong']} wrong",
        ),
        (
            f"faults meanwhile ({len(figures['faults'])} kinds)",
            sum(figures["faults"].values()),
            f"last byte to transcript: median {times['p50']:.1f} s, 99 % within {times['p99']:.0f} s, under a backlog of 60",
        ),
    ]


def fuzz(report: Path, arguments: argparse.Namespace, share: float) -> dict:
    """`inputs`, `crashes` and `hangs` of the fuzzer; its last line."""
    if not report.exists():
        shown = run("fuzz.py", "--json", "--seconds", arguments.seconds * share, "--seed", arguments.seed)
        if not shown:
            raise SystemExit("fuzz.py gave no figures")
        report.write_text(shown.splitlines()[-1])
    return json.loads(report.read_text())


def faults(report: Path) -> tuple[int, int]:
    """How many tests of faults there are, and how many of them failed."""
    if not report.exists():
        # the soak's own test is no test of one step
        options = ["-q", "--deselect", "tests/faults/test_soak.py", f"--junitxml={report}"]
        subprocess.run([sys.executable, "-m", "pytest", "tests/faults", *options], cwd=ROOT, check=False, stdout=2)
    suite = ET.parse(report).getroot()[0].attrib
    return int(suite["tests"]) - int(suite["skipped"]), int(suite["failures"]) + int(suite["errors"])


def run(script: str, *arguments: object) -> str:
    """What a script beside this one prints; it may well fail, and says so in its report."""
    command = [sys.executable, HERE / script, *map(str, arguments)]
    return subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
