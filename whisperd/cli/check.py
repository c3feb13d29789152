"""`whisperd check`: prints what is wrong with an installation and how to fix it; starts nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from whisperd.cli import add_spool_arguments
from whisperd.cli.doctor import Finding
from whisperd.cli.doctor.models import examine_models
from whisperd.cli.doctor.service import examine_service
from whisperd.cli.doctor.spool import examine_spool
from whisperd.core.errors import EXIT_BOOT, EXIT_FAILED, EXIT_OK, BootError
from whisperd.media.decode import find_ffmpeg
from whisperd.settings import config

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from whisperd.settings.config import Config

DEVICE = """
import sys
from whisperd.engine.whisper_batched.precision import resolve_compute_type
from whisperd.engine.limits import find_device
from whisperd.core.errors import BootError
try:
    device = find_device(sys.argv[1])
    is_batched = sys.argv[2] == "batched"  # other engines choose the type themselves
    print(device, f"in {resolve_compute_type(device, sys.argv[3]).name}" if is_batched else "")
except BootError as error:
    sys.exit(str(error))
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `check`."""
    add_spool_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print the findings; exit 3 if the daemon would not start, 1 if something else is wrong."""
    settings = config.load(arguments.config, root=arguments.root)
    findings = [
        Finding("ok", "configuration is valid"),
        *examine(settings),
        *examine_service(settings, arguments.config),
    ]
    for finding in findings:
        hint = f"\n         -> {finding.hint}" if finding.hint else ""
        print(f"{finding.level:7}  {finding.text}{hint}")
    levels = {finding.level for finding in findings}
    return EXIT_BOOT if "error" in levels else EXIT_FAILED if "warning" in levels else EXIT_OK


def examine(settings: Config) -> Iterator[Finding]:
    """Examine everything that the daemon needs."""
    yield from examine_spool(settings)
    yield _ffmpeg(settings)
    if settings.engine != "scripted":
        yield from examine_models(settings)
        yield _device(settings)
    cores, wanted = len(os.sched_getaffinity(0)), settings.pool.workers * settings.engine_options().threads
    if wanted > cores:
        yield Finding("warning", f"workers use {wanted} threads on {cores} cores", "lower pool.workers or pool.threads")


def _ffmpeg(settings: Config) -> Finding:
    try:
        return Finding("ok", f"ffmpeg: {find_ffmpeg(settings.media.ffmpeg)}")
    except BootError as error:
        return Finding("error", error.message, error.hint)


def _device(settings: Config) -> Finding:
    # a separate process, since a broken driver can kill it
    command = [sys.executable, "-P", "-c", DEVICE, settings.device, settings.decoding, settings.compute_type]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout.strip().splitlines()
    if done.returncode == 0 and said:
        return Finding("ok", f"device: {said[-1]}")
    why = "\n".join(done.stderr.strip().splitlines()[-1:]) or f"torch ended with status {done.returncode}"
    return Finding("error", f"device {settings.device}: {why}", "check the driver with nvidia-smi, or set device: cpu")
