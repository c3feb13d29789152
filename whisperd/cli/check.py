"""`whisperd check`: a doctor; one line a finding, each with what mends it, and nothing is started."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisperd import config
from whisperd.engine.weights.catalogue import OFFICIAL, canonical
from whisperd.engine.weights.ct2_files import find_ct2
from whisperd.engine.weights.find import find
from whisperd.errors import EXIT_BOOT, EXIT_OK, BootError
from whisperd.speech.media import find_ffmpeg
from whisperd.spool.layout import Layout

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from whisperd.config import Config


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: `ok`, `warning` or `error`."""

    level: str
    text: str
    hint: str = ""


def main(arguments: argparse.Namespace) -> int:
    """Print the findings; exit 3 if the daemon would not start."""
    settings = config.load(arguments.config, root=arguments.root)
    findings = [Finding("ok", "configuration is valid"), *examine(settings)]
    for finding in findings:
        hint = f"\n         -> {finding.hint}" if finding.hint else ""
        print(f"{finding.level:7}  {finding.text}{hint}")
    return EXIT_BOOT if any(finding.level == "error" for finding in findings) else EXIT_OK


def examine(settings: Config) -> Iterator[Finding]:
    """Look at everything that the daemon will need."""
    yield from _spool(settings)
    yield _ffmpeg(settings)
    if settings.engine != "scripted":
        yield _model(settings)
        yield _device(settings)
    cores, wanted = len(os.sched_getaffinity(0)), settings.pool.workers * settings.engine_options().threads
    if wanted > cores:
        yield Finding("warning", f"{wanted} threads in all on {cores} cores", "lower pool.workers or pool.threads")


def _spool(settings: Config) -> Iterator[Finding]:
    layout = Layout(settings.root)
    if not layout.root.is_dir():
        parent = next(parent for parent in layout.root.parents if parent.is_dir())
        if _can_create_in(parent):
            yield Finding("ok", f"root {layout.root} does not exist yet, it will be made")
        else:
            yield Finding(
                "error",
                f"root {layout.root} does not exist and cannot be made",
                f"create it, writable for uid {os.geteuid()}",
            )
        return
    if layout.is_locked():
        yield Finding("ok", f"root {layout.root}: a whisperd is at work there")
        return
    missing = [
        path.name
        for path in (layout.inbox, layout.outbox, layout.done, layout.failed, layout.work)
        if not path.is_dir()
    ]
    if missing:
        level = "ok" if os.access(layout.root, os.W_OK | os.X_OK) else "error"
        yield Finding(
            level,
            f"root {layout.root}: {', '.join(missing)} will be made",
            "" if level == "ok" else f"make it writable for uid {os.geteuid()}",
        )
    else:
        try:
            layout.check()
        except BootError as error:
            yield Finding("error", error.message, error.hint)
        else:
            yield Finding("ok", f"root {layout.root}: writable, on one filesystem")
    free, wanted = layout.free_bytes(), settings.intake.min_free
    yield Finding(
        "ok" if free >= wanted else "warning",
        f"{free >> 20} MB free, {wanted >> 20} MB wanted",
        "" if free >= wanted else "make room, or lower intake.min_free: until then nothing is taken",
    )


def _can_create_in(folder: Path) -> bool:
    """Tried, since access(2) calls even /proc writable for root."""
    try:
        with tempfile.TemporaryDirectory(prefix=".whisperd-", dir=folder):
            return True
    except OSError:
        return False


def _ffmpeg(settings: Config) -> Finding:
    try:
        return Finding("ok", f"ffmpeg: {find_ffmpeg(settings.media.ffmpeg)}")
    except BootError as error:
        return Finding("error", error.message, error.hint)


def _model(settings: Config) -> Finding:
    if settings.engine == "faster-whisper":
        return _ct2_model(settings)
    try:
        weights = find(settings.model, settings.models_directory)
    except BootError as error:
        fetchable = canonical(settings.model) in OFFICIAL
        return Finding("error", error.message + (" (it can be fetched)" if fetchable else ""), error.hint)
    return Finding("ok", f"model {settings.model}: {weights.source}")


def _ct2_model(settings: Config) -> Finding:
    if importlib.util.find_spec("faster_whisper") is None:
        return Finding(
            "error", "the engine faster-whisper is not installed", "run `pip install 'whisperd[faster-whisper]'`"
        )
    try:
        weights = find_ct2(settings.model, settings.models_directory)
    except BootError as error:
        return Finding("error", error.message, error.hint)
    return Finding("ok", f"model {settings.model}: {weights.source}")


def _device(settings: Config) -> Finding:
    if not settings.device.startswith("cuda"):
        return Finding("ok", f"device: {settings.device}")
    # in a process of its own: torch takes seconds to load, and a broken driver can take the process with it
    code = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    count = int(done.stdout) if done.returncode == 0 and done.stdout.strip().isdigit() else 0
    index = int(settings.device.partition(":")[2] or 0)
    if index < count:
        return Finding("ok", f"device: {settings.device}, {count} found")
    return Finding(
        "error",
        f"device {settings.device}: torch finds {count} CUDA device(s)",
        "check the driver with nvidia-smi, or set device: cpu",
    )
