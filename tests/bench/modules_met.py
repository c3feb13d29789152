"""Which modules of whisperd does one upload meet, from its drop to done/?

    python tests/bench/modules_met.py RECORDING                 # this tree, engine batched
    python tests/bench/modules_met.py RECORDING --tree DIR      # another checkout, to compare

A profiler in the supervisor and in its worker notes each module in which a function of ours was called after READY, and
until the original was in done/. Importing a module does not count: all were imported before READY.
"""

# ruff: noqa: T201 - a script
from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECORDER = """
import os, sys, threading, time
_tree, _log = os.environ["MODULES_MET_TREE"] + "/whisperd/", os.environ["MODULES_MET_LOG"]
_seen = {}
def _profile(frame, event, argument):
    file = frame.f_code.co_filename
    if event != "call" or not file.startswith(_tree) or frame.f_code.co_name == "<module>":
        return
    slot = int(time.time() * 10)
    if _seen.get(file) != slot:
        _seen[file] = slot
        with open(f"{_log}/{os.getpid()}", "a") as log:
            log.write(f"{slot} {file[len(_tree):]}\\n")
sys.setprofile(_profile)
threading.setprofile(_profile)
"""
WAIT_SECONDS = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[2], metavar="DIR")
    arguments = parser.parse_args()
    met = modules_met(arguments.tree.resolve(), arguments.recording)
    rooms = {}
    for module in sorted(met):
        rooms.setdefault(module.rpartition("/")[0] or ".", []).append(Path(module).stem)
    for room, names in rooms.items():
        print(f"{room + ':':28}{len(names):3}  {', '.join(names)}")
    print(f"{'all:':28}{len(met):3}")


def modules_met(tree: Path, recording: Path) -> set[str]:
    """The paths of the modules, relative to the package."""
    with tempfile.TemporaryDirectory() as scratch:
        root, hooks, log = (Path(scratch, name) for name in ("spool", "hooks", "log"))
        for directory in (hooks, log):
            directory.mkdir()
        (hooks / "sitecustomize.py").write_text(RECORDER)
        configuration = Path(scratch, "whisperd.yaml")
        configuration.write_text(json.dumps({"root": str(root), "engine": "openai-whisper", "decoding": "batched"}))
        environment = os.environ | {
            "PYTHONPATH": f"{hooks}{os.pathsep}{tree}",
            "MODULES_MET_TREE": str(tree),
            "MODULES_MET_LOG": str(log),
        }
        command = [sys.executable, "-m", "whisperd", "run", "--config", str(configuration)]
        daemon = subprocess.Popen(command, env=environment, cwd=tree, stderr=subprocess.PIPE, text=True)
        try:
            for line in daemon.stderr:
                if "ready" in line.lower():
                    break
            else:
                sys.exit("the daemon ended before READY")
            dropped_at = time.time()
            shutil.copy(recording, root / "inbox")
            done = root / "done" / recording.name
            while not done.exists():
                if daemon.poll() is not None or time.time() > dropped_at + WAIT_SECONDS:
                    sys.exit("the recording did not come to done/")
                time.sleep(0.05)
            done_at = time.time()
        finally:
            daemon.terminate()
            daemon.communicate()
        lines = [line.split(" ", 1) for file in log.iterdir() for line in file.read_text().splitlines()]
    return {module for slot, module in lines if int(dropped_at * 10) <= int(slot) <= int(done_at * 10)}


if __name__ == "__main__":
    main()
