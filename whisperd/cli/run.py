"""`whisperd run`: runs the daemon."""

from __future__ import annotations

import faulthandler
from typing import TYPE_CHECKING

from whisperd.cli import add_spool_arguments
from whisperd.cli.doctor import examine_models
from whisperd.core import events, process
from whisperd.core.errors import BootError, ConfigError
from whisperd.daemon.supervisor import Supervisor
from whisperd.listeners import logs
from whisperd.settings import config

if TYPE_CHECKING:
    import argparse

    from whisperd.cli.doctor import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    add_spool_arguments(parser)
    parser.add_argument(
        "--once",
        action="store_true",
        help="end when the inbox is empty and all jobs have ended; exit 1 if a job failed",
    )


def _missing_models(settings: config.Config) -> list[Finding]:
    """List the models that a job may ask for but whose weights are missing, to report them before a job fails."""
    findings = examine_models(settings) if settings.engine != "scripted" else ()
    return [finding for finding in findings if finding.level == "error"]


def main(arguments: argparse.Namespace) -> int:
    """Run the daemon until it is told to stop."""

    def reload() -> config.Config:
        settings = config.load(arguments.config, root=arguments.root)
        if missing := _missing_models(settings):
            raise ConfigError(str(arguments.config), [f"{finding.text} ({finding.hint})" for finding in missing])
        return settings

    settings = config.load(arguments.config, root=arguments.root)
    for finding in _missing_models(settings):
        raise BootError(finding.text, hint=finding.hint)
    if arguments.once:  # with --once nobody is uploading, so that an empty or truncated file need not wait for its data
        intake = settings.intake.model_copy(update={"empty_seconds": 0.0, "truncated_seconds": 0.0})
        settings = settings.model_copy(update={"intake": intake})
    process.set_up_logging(settings.log_level)
    faulthandler.enable()  # so that SIGABRT by the watchdog prints where the loop hangs
    emitter = events.Emitter()
    emitter.subscribe(logs.log_event)
    return Supervisor(settings, reload=reload, emitter=emitter, once=arguments.once).run()
