"""How long does one voice memo take, on a daemon that has nothing else to do?

    python tests/bench/latency.py RECORDING                  # cut to 10 s
    python tests/bench/latency.py RECORDING --seconds 5 --rounds 9 --isa avx2

The clock starts when the last byte is written and ends when the status file says `completed`. Each clip begins a little later
than the one before, so that none is a duplicate.
"""

# ruff: noqa: E402, T201 - a script: it finds its tree first, and prints
from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
from support.daemon import Daemon

from whisperd.bench.systems import INSTRUCTION_SETS
from whisperd.media.ffmpeg import find_ffmpeg

LOOK_SECONDS = 0.005
SHIFT_SECONDS = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="base")
    parser.add_argument("--isa", choices=tuple(INSTRUCTION_SETS))
    arguments = parser.parse_args()
    os.environ.update(INSTRUCTION_SETS.get(arguments.isa, {}))
    with tempfile.TemporaryDirectory() as scratch:
        clips = [cut(arguments, Path(scratch) / f"{number}.flac", number) for number in range(arguments.rounds + 1)]
        daemon = Daemon(Path(scratch) / "spool")
        daemon.settings = {"model": arguments.model}  # all else as it comes
        daemon.configure({})
        with daemon:
            daemon.wait_ready()
            taken = [measure(daemon, clip) for clip in clips][1:]  # the first one meets a cold model
    for number, (seen, done) in enumerate(taken, 1):
        print(f"{number}: claimed after {seen:.2f} s, completed after {done:.2f} s")
    print(f"median {statistics.median(done for _, done in taken):.2f} s")


def cut(arguments: argparse.Namespace, path: Path, number: int) -> bytes:
    """Make the clip of a round."""
    begin, seconds = str(number * SHIFT_SECONDS), str(arguments.seconds)
    command = [find_ffmpeg(None), "-v", "error", "-ss", begin, "-i", arguments.recording, "-t", seconds, path]
    subprocess.run(command, check=True)
    return path.read_bytes()


def measure(daemon: Daemon, content: bytes) -> tuple[float, float]:
    """Seconds from the last byte to the claim, and to the end."""
    name = f"{time.monotonic_ns()}.flac"
    (daemon.root / "inbox" / name).write_bytes(content)
    begun, claimed = time.monotonic(), 0.0
    while True:
        status = daemon.sidecar(name) or {}
        now = time.monotonic() - begun
        if not claimed and status.get("status") == "in_progress":
            claimed = now
        if status.get("status") in {"completed", "failed"}:
            assert status["status"] == "completed", status
            return claimed, now
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main()
