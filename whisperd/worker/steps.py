"""The steps of a job before and after the model: recording -> samples -> windows, and text -> files.

All inside the job's own directory.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from whisperd.core.errors import EngineError, OutOfMemory, SpoolFull, WhisperdError
from whisperd.core.job import Failure, Phase, utc_now
from whisperd.media.decode import Decoded, decode
from whisperd.media.peaks import peaks
from whisperd.output import formats, page
from whisperd.spool.durable import Folder, failpoint, is_transient, remedy, remove_tree, write
from whisperd.worker.channels import apart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from whisperd.core.transcript import Transcript
    from whisperd.engine.api import EngineInfo
    from whisperd.messages import Work

SAMPLES = "audio.s16le"
OUTPUTS = "outputs"
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
    """Tell an unexpected error of the engine from one that a job is known to cause, which passes, as do those of `passing`.

    Raises:
        EngineBroken: the worker must end.
    """
    try:
        yield
    except Exception as error:
        is_the_engines = isinstance(error, EngineError) and not isinstance(error, OutOfMemory)
        if isinstance(error, (WhisperdError, *passing)) and not is_the_engines:
            raise
        raise EngineBroken(error) from error


@contextmanager
def disk_errors() -> Iterator[None]:
    """Tell a full disk, or a directory of the job that was taken away, which are nobody's fault, from everything else.

    Raises:
        SpoolFull: the job costs no attempt.
    """
    try:
        yield
    except OSError as error:
        if is_transient(error) or isinstance(error, FileNotFoundError):
            raise SpoolFull(f"cannot read or write: {error.strerror}", hint=remedy(error)) from error
        raise


def load(work: Work, report: Callable[[Phase], None]) -> tuple[Decoded, npt.NDArray[np.int16]]:
    """Decode the recording into the job's directory; channels that are speakers make its samples (frames, channels).

    Raises:
        JobError: the recording is at fault.
        SpoolFull: no room for its samples.
    """
    samples = work.directory / SAMPLES
    with disk_errors():
        report(Phase.DECODING)
        decoded = decode(work.source, samples, work.spec.media, lambda _: report(Phase.DECODING))
        _make_durable(work.source)
        failpoint("worker.after_samples")
        return decoded, apart(_samples(work), decoded.channels)


def _samples(work: Work) -> npt.NDArray[np.int16]:
    samples = work.directory / SAMPLES
    if samples.stat().st_size < np.dtype(np.int16).itemsize:
        return np.zeros(0, np.int16)
    return np.memmap(samples, dtype=np.int16, mode="r")


def render(work: Work, decoded: Decoded, transcript: Transcript, info: EngineInfo) -> tuple[str, ...]:
    """Write the transcript in every format, durably; returns the formats.

    Raises:
        SpoolFull: no room for it.
    """
    options = work.spec.output
    texts = tuple(kind for kind in options.formats if kind != page.FORMAT)
    rendered = formats.render(transcript, options.evolve(formats=texts))
    if page.FORMAT in options.formats:
        rendered[page.FORMAT] = page.render(transcript, _about(work, decoded, info))
    with disk_errors(), Folder(work.directory) as own:
        remove_tree(own, OUTPUTS)  # an attempt that was cut off may have left some
        with Folder(work.directory, (OUTPUTS,), create=True) as outputs:
            for kind, content in rendered.items():
                write(outputs, kind, content)
                failpoint("worker.after_output")
        failpoint("worker.after_outputs")
        os.unlink(SAMPLES, dir_fd=own.fd)
    failpoint("worker.after_render")
    return options.formats


def _about(work: Work, decoded: Decoded, info: EngineInfo) -> page.About:
    return page.About(
        title=work.title or work.source.name,
        link=work.link,
        duration_seconds=decoded.duration_seconds,
        heights=peaks(_samples(work)),
        task=work.spec.transcribe.task,
        made_by=f"{info.engine}, model {PurePath(info.model).name}",  # where it lies is nobody's business
        made_at=utc_now(),
    )


def _make_durable(source: Path) -> None:
    """Bring the upload itself to the disk: its sender may delete his copy once the job is done, and scp never did."""
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
