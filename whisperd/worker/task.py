"""The steps of one job: recording -> samples -> text -> files, all inside the job's own directory."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import numpy as np

from whisperd.engine.base import SAMPLE_RATE
from whisperd.errors import SpoolFull
from whisperd.job import Phase, Result
from whisperd.output.formats import render
from whisperd.speech.media import decode
from whisperd.spool.durable import Folder, is_transient, remove_tree, write

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from whisperd.engine.base import Engine
    from whisperd.messages import Work
    from whisperd.worker.main import Reporter

SAMPLES = "audio.s16le"
OUTPUTS = "outputs"


def run(work: Work, engine: Engine, report: Reporter) -> Result:
    """Transcribe one recording.

    Raises:
        JobError: the recording, or the engine on it, is at fault.
        SpoolFull: no room for what is produced on the way.
        ReleaseRequested: the supervisor wants the job back.
    """
    started = time.monotonic()
    engine.check(work.options.transcribe)
    try:
        return _run(work, engine, report, started)
    except OSError as error:
        if is_transient(error):
            raise SpoolFull(
                f"cannot write: {error.strerror}", hint="make room on the disk; whisperd goes on by itself"
            ) from error
        raise


def _run(work: Work, engine: Engine, report: Reporter, started: float) -> Result:
    samples = work.directory / SAMPLES
    report(Phase.DECODING, 0.0, None)
    decoded = decode(work.source, samples, work.options.media, lambda _: report(Phase.DECODING, 0.0, None))
    _make_durable(work.source)
    duration = decoded.duration_seconds
    report(Phase.TRANSCRIBING, 0.0, duration)
    transcript = engine.transcribe(
        _mapped(samples), work.options.transcribe, lambda done: report(Phase.TRANSCRIBING, done, duration)
    )
    report(Phase.PUBLISHING, duration, duration)
    rendered = render(transcript, work.options.output)
    with Folder(work.directory) as own:
        remove_tree(own, OUTPUTS)  # an attempt that was cut off may have left some
        with Folder(work.directory, (OUTPUTS,), create=True) as outputs:
            for kind, content in rendered.items():
                write(outputs, kind, content)
        os.unlink(SAMPLES, dir_fd=own.fd)
    return Result(
        duration_seconds=duration,
        processing_seconds=time.monotonic() - started,
        sha256=decoded.sha256,
        language=transcript.language,
        language_probability=transcript.language_probability,
        engine=engine.info.engine,
        model=engine.info.model,
        device=engine.info.device,
        outputs=tuple(rendered),
        quality=transcript.quality,
    )


def _make_durable(source: Path) -> None:
    """Bring the upload itself to the disk: whoever sent it may delete his copy once the job is done, and scp never did."""
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _mapped(samples: Path) -> npt.NDArray[np.int16]:
    """The samples as an array that the kernel pages in and out, so that a long recording needs no more memory."""
    if samples.stat().st_size < np.dtype(np.int16).itemsize:
        return np.zeros(0, np.int16)
    return np.memmap(samples, dtype=np.int16, mode="r")


assert SAMPLE_RATE == 16_000  # what `decode` writes  # noqa: PLR2004
