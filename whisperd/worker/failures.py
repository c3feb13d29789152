"""Sorts errors into those of one job, those of the disk, and those after which the engine cannot be trusted."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from whisperd.core.errors import EngineError, OutOfMemory, SpoolFull, WhisperdError
from whisperd.core.job import Failure
from whisperd.spool.durable import is_transient, remedy

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINE_HINT = (
    "a fresh worker tries it again; if this recording alone fails, give it another model; if others fail too, the model or "
    "the device is at fault: the journal has the traceback, and dmesg or nvidia-smi may say more"
)


class EngineBroken(Exception):  # an end of the worker, not of one job
    """The engine failed in a way that no job explains: every later call may fail too, so the worker must end."""

    def __init__(self, error: BaseException) -> None:
        failure = Failure.of(error, stage="transcribing")
        if not failure.hint or failure.code == "internal":
            failure = replace(failure, hint=ENGINE_HINT)
        super().__init__(failure.message)
        self.failure = failure


@contextmanager
def engine_errors(*passing: type[Exception]) -> Iterator[None]:
    """Raise `EngineBroken` for an unexpected error of the engine; let errors of a job, and those of `passing`, through.

    Raises:
        EngineBroken: the worker must end.
    """
    try:
        yield
    except Exception as error:
        is_of_engine = isinstance(error, EngineError) and not isinstance(error, OutOfMemory)
        if isinstance(error, (WhisperdError, *passing)) and not is_of_engine:
            raise
        raise EngineBroken(error) from error


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise `SpoolFull` for a full disk or a job's directory that was taken away, which are the fault of no job.

    Raises:
        SpoolFull: the job costs no attempt.
    """
    try:
        yield
    except OSError as error:
        if is_transient(error) or isinstance(error, FileNotFoundError):
            raise SpoolFull(f"cannot read or write: {error.strerror}", hint=remedy(error)) from error
        raise
