"""A worker's life: boot, load the model, say ready, then jobs until told to end."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import signal
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard, cast

from whisperd import journal
from whisperd.errors import EXIT_BOOT, WhisperdError
from whisperd.job import Failure
from whisperd.messages import Boot, BootFailed, Ready

if TYPE_CHECKING:
    from whisperd.engine.base import Engine, WindowEngine
    from whisperd.options import EngineOptions

PR_SET_PDEATHSIG = 1
OOM_SCORE = "500"  # of 1000, proc(5): as if it had half of the machine's memory more than it has

_log = logging.getLogger(__name__)


def main(fd: int) -> int:
    """Serve the supervisor at the other end of `fd`; returns the exit status."""
    connection = Connection(fd)
    _settle_in()
    try:
        boot = connection.recv()
        if not isinstance(boot, Boot):
            raise TypeError(boot)
        engine = _boot(connection, boot.options)
        if engine is None:
            return EXIT_BOOT
        _serve(connection, engine)
    except (EOFError, ConnectionError):
        _log.debug("the supervisor has gone")
    return 0


def _settle_in() -> None:
    """What a fresh process must be told, since it inherits nothing."""
    journal.setup()
    faulthandler.enable()  # SIGABRT then says where it hangs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the supervisor's to handle
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # so is a stop by the service manager
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a worker must never outlive the lock on its spool
    with suppress(OSError):  # when memory runs out, a worker is replaced; the supervisor, or a database, is missed
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")


def _boot(connection: Connection, options: EngineOptions) -> Engine | WindowEngine | None:
    started = time.monotonic()
    try:
        from whisperd.engine.create import create  # noqa: PLC0415  # torch takes seconds; errors must reach the pipe

        engine = create(options)
    except WhisperdError as error:
        connection.send(BootFailed(Failure(type(error).code, error.message, error.hint)))
        return None
    except Exception as error:  # noqa: BLE001  # whatever it is, the supervisor must hear it
        _log.exception("the engine cannot be loaded")
        connection.send(BootFailed(Failure.of(error)))
        return None
    info = engine.info
    connection.send(Ready(info.engine, info.model, info.device, info.compute_type, time.monotonic() - started))
    return engine


def _serve(connection: Connection, engine: Engine | WindowEngine) -> None:
    # both need numpy, which a worker that cannot boot need not load
    if _takes_windows(engine):
        from whisperd.speech.vad import Detector  # noqa: PLC0415
        from whisperd.worker.scheduler import Scheduler  # noqa: PLC0415

        Scheduler(connection, engine, Detector()).serve()
        return
    from whisperd.worker.task import serve  # noqa: PLC0415

    serve(connection, cast("Engine", engine))


def _takes_windows(engine: Engine | WindowEngine) -> TypeGuard[WindowEngine]:
    return hasattr(engine, "submit")
