"""`whisperd check`: prints what is wrong with an installation and how to fix it; starts nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisperd.cli import add_spool_arguments
from whisperd.cli.doctor import Finding, examine, examine_service
from whisperd.core.errors import EXIT_BOOT, EXIT_FAILED, EXIT_OK
from whisperd.settings import config

if TYPE_CHECKING:
    import argparse


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
