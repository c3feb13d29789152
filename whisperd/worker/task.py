"""One job at a time, for an engine that transcribes whole recordings."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from whisperd.core import heap
from whisperd.core.errors import WhisperdError
from whisperd.core.job import Failure, Phase, Result
from whisperd.messages import EngineFailed, Failed, Finished, Heartbeat, Quit, Release, Released, Work
from whisperd.worker.channels import speakers, together, tracks
from whisperd.worker.memory import device_bytes
from whisperd.worker.steps import EngineBroken, engine_errors, load, render

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from whisperd.core.transcript import Transcript
    from whisperd.engine.api import Engine

HEARTBEAT_SECONDS = 0.25  # at most so often

_log = logging.getLogger(__name__)


class ReleaseRequested(Exception):  # a request, not an error
    """The supervisor wants the job back."""


class Reporter:
    """The pipeline's heartbeat, and its ear: each report looks whether the job is wanted back."""

    def __init__(self, connection: Connection, job_id: str, device: str) -> None:
        self._connection = connection
        self._device = device
        self._job_id = job_id
        self._phase = Phase.QUEUED
        self._said_at = float("-inf")

    def __call__(self, phase: Phase, processed_seconds: float = 0.0, duration_seconds: float | None = None) -> None:
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
            used = device_bytes(self._device)
            self._connection.send(Heartbeat(self._job_id, phase, processed_seconds, duration_seconds, used))


def serve(connection: Connection, engine: Engine) -> None:
    """Do one job after the other until told to end, the engine breaks, or the supervisor has gone (EOFError)."""
    trimmer = heap.Trimmer()
    while not isinstance(message := connection.recv(), Quit):
        if isinstance(message, Work):
            try:
                answer = _answer(message, engine, Reporter(connection, message.job_id, engine.info.device))
            except EngineBroken as error:
                _log.error("the engine failed, and this worker ends", exc_info=error.__cause__)
                connection.send(EngineFailed(error.failure, (message.job_id,)))
                return
            connection.send(answer)
            trimmer.tick()


def _answer(work: Work, engine: Engine, report: Reporter) -> Finished | Failed | Released:
    try:
        return Finished(work.job_id, run(work, engine, report))
    except ReleaseRequested:
        return Released(work.job_id)
    except (EOFError, ConnectionError, EngineBroken):
        raise
    except WhisperdError as error:
        return Failed(work.job_id, Failure.of(error, stage="transcribing"))
    except Exception as error:  # noqa: BLE001  # a bug must cost one attempt of one job, not the worker
        _log.exception("job %s failed in a way nobody foresaw", work.job_id)
        return Failed(work.job_id, Failure.of(error, stage="transcribing"))


def run(work: Work, engine: Engine, report: Reporter) -> Result:
    """Transcribe one recording.

    Raises:
        JobError: the recording is at fault.
        EngineBroken: the engine is, and is not to be used again.
        SpoolFull: no room for what is produced on the way.
        ReleaseRequested: the supervisor wants the job back.
    """
    started = time.monotonic()
    engine.check(work.spec.transcribe)
    decoded, samples = load(work, report)
    duration = decoded.duration_seconds
    report(Phase.TRANSCRIBING, 0.0, duration)
    parts = tracks(samples)
    transcripts: list[Transcript] = []
    for part in parts:
        before = len(transcripts) * duration

        def tell(done: float, before: float = before) -> None:
            report(Phase.TRANSCRIBING, (before + done) / len(parts), duration)

        with engine_errors(ReleaseRequested, EOFError, ConnectionError):
            transcripts.append(engine.transcribe(part, work.spec.transcribe, tell))
    names = speakers(samples, work.spec.media.speakers)
    transcript = together(transcripts, names) if names else transcripts[0]
    report(Phase.PUBLISHING, duration, duration)
    outputs = render(work, decoded, transcript, engine.info)
    return Result(
        duration_seconds=duration,
        processing_seconds=time.monotonic() - started,
        sha256=decoded.sha256,
        language=transcript.language,
        language_probability=transcript.language_probability,
        engine=engine.info.engine,
        model=engine.info.model,
        device=engine.info.device,
        outputs=outputs,
        quality=transcript.quality,
    )
