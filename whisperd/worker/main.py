"""A worker's life: boot, load the model, say ready, then one job after the other until told to end."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import signal
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from whisperd import journal
from whisperd.errors import EXIT_BOOT, WhisperdError
from whisperd.job import Failure, Phase
from whisperd.messages import Boot, BootFailed, Failed, Finished, Heartbeat, Quit, Ready, Release, Released, Work

if TYPE_CHECKING:
    from whisperd.engine.base import Engine

HEARTBEAT_SECONDS = 0.25  # at most so often
PR_SET_PDEATHSIG = 1

_log = logging.getLogger(__name__)


class ReleaseRequested(Exception):  # a request, not an error
    """The supervisor wants the job back."""


def main(fd: int) -> int:
    """Serve the supervisor at the other end of `fd`; returns the exit status."""
    connection = Connection(fd)
    _settle_in()
    boot = connection.recv()
    if not isinstance(boot, Boot):
        raise TypeError(boot)
    engine = _boot(connection, boot)
    if engine is None:
        return EXIT_BOOT
    try:
        while not isinstance(message := connection.recv(), Quit):
            if isinstance(message, Work):
                _serve(connection, engine, message)
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


def _boot(connection: Connection, boot: Boot) -> Engine | None:
    started = time.monotonic()
    try:
        from whisperd.engine.create import create  # noqa: PLC0415  # torch takes seconds; errors must reach the pipe

        engine = create(boot.options)
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


class Reporter:
    """The pipeline's heartbeat, and its ear: each report looks whether the job is wanted back."""

    def __init__(self, connection: Connection, job_id: str) -> None:
        self._connection = connection
        self._job_id = job_id
        self._phase = Phase.QUEUED
        self._said_at = float("-inf")
        self._processed = 0.0

    def __call__(self, phase: Phase, processed_seconds: float, duration_seconds: float | None) -> None:
        """Say how far the job is.

        Raises:
            ReleaseRequested: the supervisor wants it back.
            EOFError: the supervisor has gone.
        """
        if self._connection.poll():
            message = self._connection.recv()
            if isinstance(message, Release) and message.job_id == self._job_id:
                raise ReleaseRequested
        now = time.monotonic()
        if phase is not self._phase or now - self._said_at >= HEARTBEAT_SECONDS:
            self._phase, self._said_at = phase, now
            self._connection.send(Heartbeat(self._job_id, phase, processed_seconds, duration_seconds))


def _serve(connection: Connection, engine: Engine, work: Work) -> None:
    from whisperd.worker.task import run  # noqa: PLC0415  # needs numpy

    answer: Finished | Failed | Released
    try:
        answer = Finished(work.job_id, run(work, engine, Reporter(connection, work.job_id)))
    except ReleaseRequested:
        answer = Released(work.job_id)
    except (EOFError, ConnectionError):
        raise
    except WhisperdError as error:
        answer = Failed(work.job_id, Failure.of(error))
    except Exception as error:  # noqa: BLE001  # a bug must cost one attempt of one job, not the worker
        _log.exception("job %s failed in a way nobody foresaw", work.job_id)
        answer = Failed(work.job_id, Failure.of(error))
    connection.send(answer)
