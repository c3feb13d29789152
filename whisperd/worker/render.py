"""Renders a finished transcript into the job's directory, in every format that was asked for."""

from __future__ import annotations

import itertools
import os
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from whisperd.core.job import utc_now
from whisperd.core.transcript import About
from whisperd.output import formats
from whisperd.spool.durable import Folder, failpoint, remove_tree, write
from whisperd.worker.failures import disk_errors
from whisperd.worker.prepare import SAMPLES

if TYPE_CHECKING:
    import numpy.typing as npt

    from whisperd.core.transcript import Transcript
    from whisperd.engine.api import EngineInfo
    from whisperd.protocol import Work
    from whisperd.worker.prepare import Prepared

OUTPUTS = "outputs"
BARS = 240
_BLOCKS, _BLOCK = 8, 1024  # samples read for each bar, so that a long recording costs no more than a short one
_SHAPE = 0.6  # exponent from loudness to height, so that quiet speech is visible beside loud speech


def render(work: Work, prepared: Prepared, transcript: Transcript, info: EngineInfo) -> tuple[str, ...]:
    """Write the transcript in every format, durably; returns the formats.

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
    return options.formats


def _about(work: Work, prepared: Prepared, info: EngineInfo) -> About:
    return About(
        title=work.title or work.source.name,
        link=work.link,
        duration_seconds=prepared.decoded.duration_seconds,
        heights=peaks(prepared.samples.reshape(-1)),
        task=work.spec.transcribe.task,
        made_by=f"{info.engine}, model {PurePath(info.model).name}",  # its folder is private
        made_at=utc_now(),
    )


def peaks(samples: npt.NDArray[np.int16]) -> tuple[int, ...]:
    """Measure how loud a recording is along its length: `BARS` heights from 0 to 100, the loudest 100; none if it is silent."""
    edges = np.linspace(0, len(samples), BARS + 1).astype(np.int64)
    heights = np.array([_loudness(samples[start:end]) for start, end in itertools.pairwise(edges)])
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
