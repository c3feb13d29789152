"""`whisperd run`: the daemon."""

from __future__ import annotations

import faulthandler
from typing import TYPE_CHECKING

from whisperd import config, events, journal
from whisperd.daemon.supervisor import Supervisor
from whisperd.observe import logs

if TYPE_CHECKING:
    import argparse


def main(arguments: argparse.Namespace) -> int:
    """Run until told to stop."""

    def reload() -> config.Config:
        return config.load(arguments.config, root=arguments.root)

    settings = reload()
    if arguments.once:  # nobody is uploading: an empty or cut off file need not wait for its data
        intake = settings.intake.model_copy(update={"empty_seconds": 0.0, "truncated_seconds": 0.0})
        settings = settings.model_copy(update={"intake": intake})
    journal.setup(settings.log_level)
    faulthandler.enable()  # the watchdog's SIGABRT then says where the loop stands still
    emitter = events.Emitter()
    emitter.subscribe(logs.log_event)
    return Supervisor(settings, reload=reload, emitter=emitter, once=arguments.once).run()
