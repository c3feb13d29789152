"""`whisperd run`: the daemon."""

from __future__ import annotations

import faulthandler
from typing import TYPE_CHECKING

from whisperd.cli.check_models import models
from whisperd.core import events, log_lines
from whisperd.core.errors import BootError, ConfigError
from whisperd.daemon.supervisor import Supervisor
from whisperd.listeners import logs
from whisperd.settings import config

if TYPE_CHECKING:
    import argparse

    from whisperd.cli.finding import Finding


def _lacking(settings: config.Config) -> list[Finding]:
    """Models that a job may ask for and whose weights are not here: better said now than when one does."""
    findings = models(settings) if settings.engine != "scripted" else ()
    return [finding for finding in findings if finding.level == "error"]


def main(arguments: argparse.Namespace) -> int:
    """Run until told to stop."""

    def reload() -> config.Config:
        settings = config.load(arguments.config, root=arguments.root)
        if lacking := _lacking(settings):
            raise ConfigError(str(arguments.config), [f"{finding.text} ({finding.hint})" for finding in lacking])
        return settings

    settings = config.load(arguments.config, root=arguments.root)
    for finding in _lacking(settings):
        raise BootError(finding.text, hint=finding.hint)
    if arguments.once:  # nobody is uploading: an empty or cut off file need not wait for its data
        intake = settings.intake.model_copy(update={"empty_seconds": 0.0, "truncated_seconds": 0.0})
        settings = settings.model_copy(update={"intake": intake})
    log_lines.setup(settings.log_level)
    faulthandler.enable()  # the watchdog's SIGABRT then says where the loop stands still
    emitter = events.Emitter()
    emitter.subscribe(logs.log_event)
    return Supervisor(settings, reload=reload, emitter=emitter, once=arguments.once).run()
