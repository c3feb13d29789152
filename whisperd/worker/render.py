"""Renders text into the job's directory: a finished transcript in every format that was asked for, and the text so far.

The supervisor publishes both from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import time
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from whisperd.core.job import utc_now
from whisperd.core.transcript import About, Transcript
from whisperd.output import formats
from whisperd.spool.durable import Folder, extend, failpoint, remove_tree, write
from whisperd.worker.prepare import SAMPLES, disk_errors

if TYPE_CHECKING:
    import numpy.typing as npt

    from whisperd.engine.api import EngineInfo
    from whisperd.protocol import Work
    from whisperd.worker.assembly import Assembly
    from whisperd.worker.prepare import Prepared

OUTPUTS = "outputs"
PARTIAL = "partial.txt"
PARTIAL_SECONDS = 1.0  # between two writes of the text so far
BARS = 240
_BLOCKS, _BLOCK = 8, 1024  # samples read for each bar, so that a long recording costs no more than a short one
_SHAPE = 0.6  # exponent from loudness to height, so that quiet speech is visible beside loud speech

_log = logging.getLogger(__name__)


def render(work: Work, prepared: Prepared, transcript: Transcript, info: EngineInfo) -> dict[str, str]:
    """Write the transcript in every format, durably; returns the SHA-256 of each file by its format.

    Raises:
        SpoolFull: no room for it.
    """
    options = work.spec.output
    rendered = formats.render(transcript, options, _about(work, prepared, info))
    with disk_errors(), Folder(work.directory) as own:
        remove_tree(own, OUTPUTS)  # an interrupted attempt may have left some
        with Folder(work.directory, (OUTPUTS,), create=True) as outputs:
            for kind, content in rendered.items():
                write(outputs, kind, content)
                failpoint("worker.after_output")
        failpoint("worker.after_outputs")
        os.unlink(SAMPLES, dir_fd=own.fd)
    failpoint("worker.after_render")
    return {kind: hashlib.sha256(content).hexdigest() for kind, content in rendered.items()}


class PartialText:
    """Writes the text so far of one job; each attempt begins a new file, filled at once from the resume log."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._options = work.spec.output.evolve(formats=("txt",), layout="raw")  # lines, which never change again
        self._due_at = 0.0
        self._windows = 0
        self._is_logged = False
        with contextlib.suppress(OSError), Folder(work.directory) as own:
            os.unlink(PARTIAL, dir_fd=own.fd)

    def update(self, assembly: Assembly) -> None:
        """Write the final segments, at most once a second; a failure is logged once and does not harm the job."""
        now = time.monotonic()
        if now < self._due_at or assembly.finished_windows == self._windows:
            return
        self._windows = assembly.finished_windows
        segments = assembly.final()
        if not segments:
            return
        self._due_at = now + PARTIAL_SECONDS
        text = formats.render(Transcript("", segments, assembly.language or ""), self._options)["txt"]
        try:
            with Folder(self._work.directory) as own:
                extend(own, PARTIAL, text)  # durably: after a power cut it tells whether a file in the outbox is ours
        except OSError as error:
            if not self._is_logged:
                self._is_logged = True
                _log.warning(
                    "job %s: its text so far cannot be written: %s",
                    self._work.job_id,
                    error.strerror,
                    extra={"job": self._work.job_id},
                )


def _about(work: Work, prepared: Prepared, info: EngineInfo) -> About:
    return About(
        title=work.title or work.source.name,
        link=work.link,
        duration_seconds=prepared.decoded.duration_seconds,
        heights=peaks(*prepared.sounds),
        task=work.spec.transcribe.task,
        made_by=f"{info.engine}, model {PurePath(info.model).name}",  # its folder is private
        made_at=utc_now(),
    )


def peaks(*sounds: npt.NDArray[np.int16]) -> tuple[int, ...]:
    """Measure how loud a recording is along its length: `BARS` heights from 0 to 100, the loudest 100; none if it is silent.

    Of several tracks the loudest counts.
    """
    length = max(map(len, sounds))
    heights = np.zeros(BARS)
    for sound in sounds:
        samples = sound.reshape(-1)
        edges = np.linspace(0, length * (sound.shape[1] if sound.ndim > 1 else 1), BARS + 1).astype(np.int64)
        loud = [_loudness(samples[start:end]) for start, end in itertools.pairwise(edges)]
        heights = np.maximum(heights, loud)
    loudest = heights.max()
    if not loudest:
        return ()
    return tuple(np.rint(100 * (heights / loudest) ** _SHAPE).astype(int).tolist())


def _loudness(samples: npt.NDArray[np.int16]) -> float:
    """Root mean square of samples; of some of them if they are many."""
    if not len(samples):
        return 0.0
    if len(samples) > _BLOCKS * _BLOCK:
        starts = np.linspace(0, len(samples) - _BLOCK, _BLOCKS).astype(np.int64)
        samples = np.concatenate([samples[start : start + _BLOCK] for start in starts])
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
