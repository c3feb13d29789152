"""The pipeline of a worker: it prepares jobs, has the engine decode their windows together, and renders their transcripts.

Each job is prepared on a thread of its own, which mostly waits for ffmpeg or computes without the interpreter lock; the
engine belongs to this thread alone. Jobs take turns window by window, so that a voice memo does not wait behind a
four-hour meeting. An engine that takes whole recordings gets them as windows, and everything else is the same.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from whisperd.core.errors import EngineError, OutOfMemory, SpoolFull, WhisperdError
from whisperd.core.job import Failure, Phase, Result
from whisperd.core.process import Trimmer
from whisperd.engine.api import AudioWindow
from whisperd.protocol import EngineFailed, Failed, Finished, Heartbeat, ProtocolError, Quit, Release, Released, Work
from whisperd.worker.assembly import Assembly
from whisperd.worker.gaps import GapSearch, once_more
from whisperd.worker.prepare import Prepared, disk_errors, prepare
from whisperd.worker.render import PartialText, render
from whisperd.worker.resume_log import ResumeLog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whisperd.core.errors import JobError
    from whisperd.diarization.on_demand import DiarizerOnDemand
    from whisperd.engine.api import DecodedWindow, Engine
    from whisperd.media.vad import Detector
    from whisperd.protocol import FromWorker, PipeEnd, ToWorker
    from whisperd.worker.assembly import Piece

HEARTBEAT_SECONDS = 0.25  # at least this long between two heartbeats of a job
PREPARING_NICE = 10  # more than the daemon; not 19, or ffmpeg would starve on a machine that others keep busy
NICEST = 19
ENGINE_HINT = (
    "a fresh worker tries it again; if this recording alone fails, give it another model; if others fail too, the model or "
    "the device is at fault: the journal has the traceback, and dmesg or nvidia-smi may say more"
)

_log = logging.getLogger(__name__)


class Withdrawn(Exception):  # a request, not an error
    """The supervisor wants the job back."""


class EngineBroken(Exception):  # an end of the worker, not of one job
    """The engine failed in a way that no job explains: every later call may fail too, so the worker must end."""

    def __init__(self, error: BaseException) -> None:
        failure = Failure.of(error, stage="transcribing")
        if not failure.hint or failure.code == "internal":
            failure = dataclasses.replace(failure, hint=ENGINE_HINT)
        super().__init__(failure.message)
        self.failure = failure


@dataclass(slots=True, eq=False)
class PreparingJob:
    """A job that a thread prepares."""

    work: Work
    started_at: float
    said_at: float = float("-inf")
    is_released: bool = False


@dataclass(slots=True, eq=False)
class DecodingJob:
    """A job whose windows the engine decodes."""

    work: Work
    started_at: float
    prepared: Prepared
    log: ResumeLog
    assembly: Assembly
    partial: PartialText | None
    said_at: float = float("-inf")
    resumed_windows: int = 0

    def next_piece(self) -> Piece | None:
        """Take from the resume log what it has; hand out the first piece that it does not have."""
        while (piece := self.assembly.next()) is not None:
            known = self.log.find(piece.key)
            if known is None:
                return piece
            self.resumed_windows += 1
            self.assembly.take(piece, known)
        return None


class Pipeline:
    """All jobs of this worker, and the loop that serves them.

    Args:
        connection: to the supervisor.
        engine: the loaded model.
        detector: finds speech; None if the engine takes whole recordings.
        diarizer: tells people apart in recordings whose spec asks for it.
        device: what status files call the device, if not what the engine calls it.
    """

    def __init__(
        self,
        connection: PipeEnd[FromWorker, ToWorker],
        engine: Engine,
        detector: Detector | None,
        diarizer: DiarizerOnDemand | None = None,
        *,
        device: str = "",
    ) -> None:
        self._device = device or engine.info.device
        self._connection = connection
        self._engine = engine
        self._detector, self._diarizer = detector, diarizer
        self._preparing: dict[str, PreparingJob] = {}
        self._prepared: collections.deque[tuple[PreparingJob, Prepared | BaseException]] = collections.deque()
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._decoding: collections.OrderedDict[str, DecodingJob] = collections.OrderedDict()  # next in turn first
        self._in_engine: dict[int, tuple[DecodingJob, Piece]] = {}  # by handle
        self._has_shrunk = False
        self._is_quitting = False
        self._trimmer = Trimmer()

    def serve(self) -> None:
        """Work until told to end, the engine breaks, or the supervisor has gone (EOFError)."""
        try:
            while not (self._is_quitting and not self._preparing and not self._decoding):
                self._take_prepared()
                self._submit()
                self._update_partial_texts()
                if self._engine.pending:
                    self._step()
                # Checked only now: a vote that ended in this step brings new windows, and no message would say so.
                self._hear(block=not self._engine.pending and not self._has_work())
        except EngineBroken as error:
            _log.error("the engine failed, and this worker ends", exc_info=error.__cause__)
            self._say(EngineFailed(error.failure, tuple(self._decoding)))

    def _has_work(self) -> bool:
        return bool(self._prepared) or any(job.assembly.has_work for job in self._decoding.values())

    # Messages.

    def _say(self, message: FromWorker) -> None:
        self._connection.send(message)

    def _hear(self, *, block: bool) -> None:
        ready = wait([self._connection.fileno(), self._woken], timeout=None if block else 0)
        if self._woken in ready:
            os.read(self._woken, 4096)
        while self._connection.poll():
            match self._connection.receive():
                case Work() as work:
                    self._begin(work)
                case Release(job_id):
                    self._release(job_id)
                case Quit():
                    self._is_quitting = True

    def _release(self, job_id: str) -> None:
        """Give a job back at once, or, while it is prepared, at the next report of its thread."""
        if (preparing := self._preparing.get(job_id)) is not None:
            preparing.is_released = True
        elif (decoding := self._decoding.get(job_id)) is not None:
            self._end(decoding, Released(job_id))

    def _report(self, job: DecodingJob, *, phase: Phase = Phase.TRANSCRIBING, more_seconds: float = 0.0) -> None:
        """Send a heartbeat, unless the last one was a moment ago and of the same phase."""
        now = time.monotonic()
        if now - job.said_at < HEARTBEAT_SECONDS and phase is Phase.TRANSCRIBING:
            return
        job.said_at = now
        duration = job.prepared.decoded.duration_seconds
        done = min(duration, job.assembly.processed_seconds + more_seconds)
        used = _device_bytes(self._engine.info.device)
        self._say(Heartbeat(job.work.job_id, phase, done, duration, used))

    # Preparation.

    def _begin(self, work: Work) -> None:
        job = self._preparing[work.job_id] = PreparingJob(work, time.monotonic())
        try:
            threading.Thread(target=self._prepare, args=(job,), daemon=True).start()
        except RuntimeError as error:  # at a limit of threads; the other jobs of this worker have theirs
            self._prepared.append((job, error))

    def _prepare(self, job: PreparingJob) -> None:
        """Prepare a job, on a thread of its own; whatever its outcome, the loop hears of it at once."""

        def report(phase: Phase) -> None:
            if job.is_released:
                raise Withdrawn
            now = time.monotonic()
            if now - job.said_at >= HEARTBEAT_SECONDS:
                job.said_at = now
                used = _device_bytes(self._engine.info.device)
                self._say(Heartbeat(job.work.job_id, phase, 0.0, None, used))

        outcome: Prepared | BaseException
        try:
            _be_nice()
            _compute_alone()
            self._engine.check(job.work.spec.transcribe)
            outcome = prepare(job.work, self._detector, self._diarizer, report, whole=self._engine.takes_recordings)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the loop must hear it
            outcome = error
        self._prepared.append((job, outcome))
        with suppress(BlockingIOError):  # the pipe is full, so the loop will wake up anyway
            os.write(self._wake, b"\0")

    def _take_prepared(self) -> None:
        while self._prepared:
            job, outcome = self._prepared.popleft()
            del self._preparing[job.work.job_id]
            if job.is_released:  # after its thread's last report
                outcome = Withdrawn()
            if not isinstance(outcome, BaseException):
                try:
                    self._begin_decoding(job, outcome)
                except (OSError, SpoolFull) as error:
                    outcome = error
            if isinstance(outcome, Withdrawn):
                self._say(Released(job.work.job_id))
            elif isinstance(outcome, BaseException):
                self._say_failed(job.work.job_id, outcome)

    def _begin_decoding(self, job: PreparingJob, prepared: Prepared) -> None:
        work, engine = job.work, self._engine
        made_from: dict[str, Any] = {
            "sha256": prepared.decoded.sha256,
            "engine": dataclasses.asdict(engine.info),
            "options": work.spec.transcribe.model_dump(),
            "windows": prepared.windows,
            "parts": prepared.parts,
        }
        if work.spec.media.tracks != "first":  # windows of another track may be at the same times
            made_from["tracks"] = work.spec.media.tracks
        with disk_errors():
            log = ResumeLog(work.directory, made_from)
        speech = prepared.parts if work.spec.vad.enabled else []
        assembly = Assembly(
            prepared.windows,
            prepared.total,
            work.spec.transcribe.language,
            prepared.speakers,
            prepared.turns,
            whole=engine.takes_recordings,
            parts=prepared.parts,
            gaps=None if engine.takes_recordings else GapSearch(speech, work.spec.transcribe),
            names=prepared.names,
        )
        # The text of a whole recording comes all at once, when the transcript itself is there.
        partial = PartialText(work) if work.spec.output.partial and not engine.takes_recordings else None
        decoding = DecodingJob(work, job.started_at, prepared, log, assembly, partial)
        self._decoding[work.job_id] = decoding
        self._report(decoding)

    # Decoding.

    def _submit(self) -> None:
        """Keep the engine supplied, with a few windows more than it decodes at once: they join as soon as others leave."""
        wanted = self._engine.capacity
        if not self._engine.takes_recordings:
            wanted += max(1, wanted // 4)
        waiting = collections.deque(self._decoding.values())
        while waiting and self._engine.pending < wanted:
            job = waiting.popleft()
            piece = job.next_piece()
            if piece is None:
                if job.assembly.is_done:
                    self._finish(job)
                continue
            audio, options = job.prepared.cut(piece.start, piece.end), job.work.spec.transcribe
            try:
                with _engine_errors():
                    handle = self._engine.submit(
                        AudioWindow(
                            audio,
                            once_more(options) if piece.kind == "gap" else options,
                            piece.language,
                            piece.listen,
                            piece.accepts,
                            only_language=piece.kind == "look",
                        )
                    )
            except WhisperdError as error:
                self._fail(job, error)
                continue
            self._in_engine[handle] = job, piece
            self._decoding.move_to_end(job.work.job_id)
            waiting.append(job)

    def _update_partial_texts(self) -> None:
        for job in self._decoding.values():
            if job.partial is not None:
                job.partial.update(job.assembly)

    def _step(self) -> None:
        try:
            with _engine_errors(Withdrawn, EOFError, ConnectionError, ProtocolError):
                finished = self._engine.step(self._beat)
        except Withdrawn:
            return
        except OutOfMemory as error:
            with _engine_errors():
                can_continue = self._engine.shrink()
            if not can_continue:
                raise EngineBroken(error) from error
            self._has_shrunk = True
            _log.warning("out of memory: %d windows at once from now on", self._engine.capacity)
            return
        outcomes: dict[DecodingJob, list[tuple[Piece, DecodedWindow | JobError]]] = {}
        for handle, outcome in finished:
            if handle in self._in_engine:
                job, piece = self._in_engine.pop(handle)
                outcomes.setdefault(job, []).append((piece, outcome))
        for job, decoded in outcomes.items():
            self._take_decoded(job, decoded)
        for job in self._decoding.values():
            self._report(job)

    def _beat(self, handle: int, seconds: float) -> None:
        """Serve the supervisor during a long step of the engine; it interrupts the step if the job is wanted back."""
        self._hear(block=False)
        if handle not in self._in_engine:
            raise Withdrawn
        job, _ = self._in_engine[handle]
        self._report(job, more_seconds=seconds / max(1, len(job.assembly.speakers)))

    def _take_decoded(self, job: DecodingJob, outcomes: list[tuple[Piece, DecodedWindow | JobError]]) -> None:
        decoded = []
        for piece, outcome in outcomes:
            if isinstance(outcome, WhisperdError):
                self._fail(job, outcome)
                return
            decoded.append((piece, outcome))
        try:
            with disk_errors():
                job.log.add([(piece.key, window) for piece, window in decoded])
        except (OSError, SpoolFull) as error:
            self._fail(job, error)
            return
        for piece, window in decoded:
            job.assembly.take(piece, window)
        self._report(job)
        if job.assembly.is_done:
            self._finish(job)

    # Ends.

    def _finish(self, job: DecodingJob) -> None:
        self._report(job, phase=Phase.PUBLISHING)
        transcript = dataclasses.replace(job.assembly.transcript(), voices=job.prepared.voices)
        decoded, info = job.prepared.decoded, self._engine.info
        transcript.quality["resumed_windows"] = job.resumed_windows
        if self._has_shrunk:
            transcript.quality["batch_size"] = self._engine.capacity
        try:
            digests = render(job.work, job.prepared, transcript, info)
        except (OSError, WhisperdError) as error:
            self._fail(job, error)
            return
        result = Result(
            duration_seconds=decoded.duration_seconds,
            processing_seconds=time.monotonic() - job.started_at,
            sha256=decoded.sha256,
            language=transcript.language,
            language_probability=transcript.language_probability,
            engine=info.engine,
            model=info.model,
            device=self._device,
            outputs=tuple(digests),
            quality=transcript.quality,
            languages=transcript.languages(),
            digests=digests,
            voices=transcript.voices,
        )
        self._end(job, Finished(job.work.job_id, result))

    def _fail(self, job: DecodingJob, error: BaseException) -> None:
        self._end(job, None)
        self._say_failed(job.work.job_id, error)

    def _say_failed(self, job_id: str, error: BaseException) -> None:
        if not isinstance(error, WhisperdError):
            _log.error("job %s failed with an unexpected error", job_id, exc_info=error, extra={"job": job_id})
        self._say(Failed(job_id, Failure.of(error, stage="transcribing")))

    def _end(self, job: DecodingJob, message: FromWorker | None) -> None:
        for handle in [handle for handle, (owner, _) in self._in_engine.items() if owner is job]:
            del self._in_engine[handle]
            self._engine.withdraw(handle)
        job.log.close()
        del self._decoding[job.work.job_id]
        self._trimmer.tick()
        if message is not None:
            self._say(message)


@contextmanager
def _engine_errors(*passing: type[Exception]) -> Iterator[None]:
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


def _device_bytes(device: str) -> int | None:
    """Memory in use on a GPU, by any process; None if this process does not use it through torch.

    Asking must not make torch set up CUDA: that alone takes hundreds of megabytes.
    """
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda") or not torch.cuda.is_initialized():
        return None
    free, total = torch.cuda.mem_get_info(device)
    return int(total - free)


def _be_nice() -> None:
    """Lower the priority of this thread, whose nice value Linux keeps apart (setpriority(2), BUGS), if that is allowed.

    Relative to what the daemon was started with: a value below that is refused to everybody but root.
    """
    thread = threading.get_native_id()
    with suppress(OSError):
        nice = os.getpriority(os.PRIO_PROCESS, thread) + PREPARING_NICE
        os.setpriority(os.PRIO_PROCESS, thread, min(nice, NICEST))


def _compute_alone() -> None:
    """Give torch one thread on this thread: two that share each product would hold up the engine, which needs both cores."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)  # of OpenMP and MKL, which count them for each calling thread apart
