"""A worker's life: boot, load the model, say ready, then jobs until told to end."""

from __future__ import annotations

import ctypes
import faulthandler
import functools
import logging
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard, cast

from whisperd.core import log_lines
from whisperd.core.errors import EXIT_BOOT, NoResources, WhisperdError
from whisperd.core.job import Failure
from whisperd.media.ffmpeg import SAMPLE_RATE, find_ffmpeg, inspect
from whisperd.protocol import FROM_WORKER, TO_WORKER, Boot, BootFailed, FromWorker, PipeEnd, Ready, ToWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from whisperd.core.options import EngineOptions
    from whisperd.engine.api import Engine, WindowEngine

PR_SET_PDEATHSIG = 1
OOM_SCORE = "500"  # of 1000, proc(5): as if it had half of the machine's memory more than it has

_log = logging.getLogger(__name__)


def main(fd: int) -> int:
    """Serve the supervisor at the other end of `fd`; returns the exit status."""
    connection = PipeEnd(socket.socket(fileno=fd), FROM_WORKER, TO_WORKER)
    _settle_in()
    try:
        boot = connection.receive()
        if not isinstance(boot, Boot):
            raise TypeError(boot)
        serve = _boot(connection, boot.options)
        if serve is None:
            return EXIT_BOOT
        serve()
    except (EOFError, ConnectionError):
        _log.debug("the supervisor has gone")
    return 0


def _settle_in() -> None:
    """What a fresh process must be told, since it inherits nothing."""
    log_lines.setup()
    faulthandler.enable()  # SIGABRT then says where it hangs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the supervisor's to handle
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # so is a stop by the service manager
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a worker must never outlive the lock on its spool
    with suppress(OSError):  # when memory runs out, a worker is replaced; the supervisor, or a database, is missed
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")


def _boot(connection: PipeEnd[FromWorker, ToWorker], options: EngineOptions) -> Callable[[], None] | None:
    """Load and try everything that a job needs, and say ready; returns what serves jobs, None if something cannot work."""
    started = time.monotonic()
    try:
        from whisperd.engine.create import create  # noqa: PLC0415  # torch takes seconds; errors must reach the pipe

        inspect(find_ffmpeg(options.ffmpeg))
        engine = create(options)
        serve = _server(connection, engine)
    except NoResources as error:
        _log.error("the worker ends: %s", error)  # a death, which is tried again, and no failed boot
        return None
    except WhisperdError as error:
        connection.send(BootFailed(Failure.of(error)))
        return None
    except Exception as error:  # noqa: BLE001  # whatever it is, the supervisor must hear it
        _log.exception("the worker cannot load what its jobs need")
        connection.send(BootFailed(Failure.of(error)))
        return None
    info = engine.info
    connection.send(Ready(info.engine, info.model, info.device, info.compute_type, time.monotonic() - started))
    return serve


def _server(connection: PipeEnd[FromWorker, ToWorker], engine: Engine | WindowEngine) -> Callable[[], None]:
    """What serves jobs with this engine; voice detection, where jobs need it, has been loaded and tried."""
    # these need numpy, which a worker without a model need not load
    if _takes_windows(engine):
        import numpy as np  # noqa: PLC0415

        from whisperd.media.vad import Detector  # noqa: PLC0415
        from whisperd.worker.scheduler import Scheduler  # noqa: PLC0415

        detector = Detector()
        for _ in detector.probabilities(np.zeros(SAMPLE_RATE, np.int16), lambda _: None):
            pass
        return Scheduler(connection, engine, detector).serve
    from whisperd.worker.task import serve  # noqa: PLC0415

    return functools.partial(serve, connection, cast("Engine", engine))


def _takes_windows(engine: Engine | WindowEngine) -> TypeGuard[WindowEngine]:
    return hasattr(engine, "submit")
