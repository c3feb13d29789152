"""Starts a worker: sets up its process, loads what jobs need, says ready and serves until told to end."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from whisperd.core import process
from whisperd.core.errors import EXIT_BOOT, NoResources, WhisperdError
from whisperd.core.job import Failure
from whisperd.media.ffmpeg import SAMPLE_RATE, find_ffmpeg, inspect
from whisperd.protocol import FROM_WORKER, TO_WORKER, Boot, BootFailed, FromWorker, PipeEnd, Ready, ToWorker

if TYPE_CHECKING:
    from whisperd.core.options import EngineOptions
    from whisperd.engine.api import Engine
    from whisperd.worker.pipeline import Pipeline

PR_SET_PDEATHSIG = 1
OOM_SCORE = "500"  # of 1000, proc(5): as if it had half of the machine's memory more than it has

_log = logging.getLogger(__name__)


def main(fd: int) -> int:
    """Serve the supervisor at the other end of `fd`; returns the exit status."""
    connection = PipeEnd(socket.socket(fileno=fd), FROM_WORKER, TO_WORKER)
    _set_up_process()
    try:
        boot = connection.receive()
        if not isinstance(boot, Boot):
            raise TypeError(boot)
        pipeline = _boot(connection, boot)
        if pipeline is None:
            return EXIT_BOOT
        pipeline.serve()
    except (EOFError, ConnectionError):
        _log.debug("the supervisor has gone")
    return 0


def _set_up_process() -> None:
    """Set up logging, signals and what happens if the parent dies or memory runs out."""
    process.set_up_logging()
    faulthandler.enable()  # so that SIGABRT logs where the process hangs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # and so is a stop by the service manager
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a worker must never outlive the lock on its spool
    with suppress(OSError):  # if memory runs out, the kernel should kill a worker, which is replaced, and nothing else
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")


def _boot(connection: PipeEnd[FromWorker, ToWorker], boot: Boot) -> Pipeline | None:
    """Load and try everything that jobs need, and say ready; None if something cannot work."""
    started_at = time.monotonic()
    options = boot.options
    try:
        if boot.cpus:
            with suppress(OSError):  # they were taken from the service meanwhile: it is slower on others, no more
                os.sched_setaffinity(0, boot.cpus)  # before torch is loaded, whose threads inherit it
        from whisperd.engine.api import create  # noqa: PLC0415  # torch takes seconds; errors must reach the pipe

        inspect(find_ffmpeg(options.ffmpeg))
        engine = create(options)
        pipeline = _pipeline(connection, engine, options, boot.device)
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
    device, seconds = boot.device or info.device, time.monotonic() - started_at
    connection.send(Ready(info.engine, info.model, device, info.compute_type, seconds))
    return pipeline


def _pipeline(
    connection: PipeEnd[FromWorker, ToWorker], engine: Engine, options: EngineOptions, device: str
) -> Pipeline:
    """Make the pipeline; load voice detection, and try it, if the engine needs it."""
    import numpy as np  # noqa: PLC0415  # as above

    from whisperd.diarization.on_demand import DiarizerOnDemand  # noqa: PLC0415
    from whisperd.worker.pipeline import Pipeline  # noqa: PLC0415

    diarizer = DiarizerOnDemand(options.models_directory, options.threads)
    if engine.takes_recordings:
        return Pipeline(connection, engine, None, diarizer, device=device)
    from whisperd.media.vad import Detector  # noqa: PLC0415  # torch is large

    detector = Detector()
    for _ in detector.probabilities(np.zeros(SAMPLE_RATE, np.int16), lambda _: None):
        pass
    return Pipeline(connection, engine, detector, diarizer, device=device)
