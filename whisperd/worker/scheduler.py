"""Several jobs in one worker: their windows share the batches of one model.

Each job is prepared (decoded by ffmpeg, speech found, cut into windows) on a thread of its own, which spends its time
in a child process and in kernels that let other threads run; the model belongs to this thread alone. Jobs take turns
window by window, so a voice memo does not wait behind a four-hour meeting.

A preparing thread is nice, and so is the ffmpeg that it starts: where cores are few, a product on all of them waits for
the one that does something else meanwhile (six readings on two cores, in turn: 54.6 and 43.7 s, nice 44.3 and 41.3 s).
A model without windows leaves the cores idle, so preparation is never far behind.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from whisperd.core import heap
from whisperd.core.errors import OutOfMemory, SpoolFull, WhisperdError
from whisperd.core.job import Failure, Phase, Result
from whisperd.engine.api import AudioWindow
from whisperd.messages import EngineFailed, Failed, Finished, Heartbeat, Quit, Release, Released, Work
from whisperd.worker.channels import speakers
from whisperd.worker.journal import Journal
from whisperd.worker.memory import device_bytes
from whisperd.worker.partial import Partial
from whisperd.worker.prepare import Prepared, prepare
from whisperd.worker.recording import Recording, Span
from whisperd.worker.steps import EngineBroken, disk_errors, engine_errors, render

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from whisperd.engine.api import DecodedWindow, WindowEngine
    from whisperd.media.vad import Detector
    from whisperd.messages import FromWorker

HEARTBEAT_SECONDS = 0.25
PREPARING_NICE = 10  # more than the daemon; not 19: where others keep the machine busy, ffmpeg must not starve
NICEST = 19

_log = logging.getLogger(__name__)


class Withdrawn(Exception):  # a request, not an error
    """The supervisor wants the job back."""


@dataclass(slots=True, eq=False)
class Task:
    """One job in this worker."""

    work: Work
    started: float
    released: bool = False
    said_at: float = float("-inf")
    prepared: Prepared | None = None
    journal: Journal | None = None
    recording: Recording | None = None
    partial: Partial | None = None
    tickets: dict[int, Span] = field(default_factory=dict)
    resumed: int = 0


class Scheduler:
    """All jobs of this worker, and the one loop that serves them."""

    def __init__(self, connection: Connection, engine: WindowEngine, detector: Detector) -> None:
        self._connection = connection
        self._engine = engine
        self._detector = detector
        self._tasks: collections.OrderedDict[str, Task] = collections.OrderedDict()
        self._prepared: collections.deque[tuple[Task, Prepared | BaseException]] = collections.deque()
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._speaking = threading.Lock()
        self._quit = False
        self._shrunk = 0
        self._trimmer = heap.Trimmer()

    def serve(self) -> None:
        """Work until told to end, the engine breaks, or the supervisor has gone (EOFError)."""
        try:
            self._serve()
        except EngineBroken as error:
            _log.error("the engine failed, and this worker ends", exc_info=error.__cause__)
            batch = tuple(job_id for job_id, task in self._tasks.items() if task.recording is not None)
            self._say(EngineFailed(error.failure, batch))

    def _serve(self) -> None:
        while not (self._quit and not self._tasks):
            self._take_prepared()
            self._submit()
            self._keep_texts()
            if self._engine.pending:
                self._step()
            # only now: a vote that has ended a moment ago brings new windows, and nobody would say so
            self._hear(block=self._engine.pending == 0 and not self._has_work())

    def _has_work(self) -> bool:
        return bool(self._prepared) or any(task.recording and task.recording.todo for task in self._tasks.values())

    def _say(self, message: FromWorker) -> None:
        with self._speaking:
            self._connection.send(message)

    def _hear(self, *, block: bool) -> None:
        ready = wait([self._connection, self._woken], timeout=None if block else 0)
        if self._woken in ready:
            os.read(self._woken, 4096)
        while self._connection.poll():
            match self._connection.recv():
                case Work() as work:
                    self._begin(work)
                case Release(job_id) if job_id in self._tasks:
                    self._release(self._tasks[job_id])
                case Quit():
                    self._quit = True

    def _begin(self, work: Work) -> None:
        task = self._tasks[work.job_id] = Task(work, time.monotonic())
        try:
            threading.Thread(target=self._prepare, args=(task,), daemon=True).start()
        except RuntimeError as error:  # at a limit of tasks; the other jobs of this worker have their threads
            self._fail(task, error)

    def _prepare(self, task: Task) -> None:
        """Prepare one job, on a thread of its own. Whatever becomes of it, the loop hears it at once."""

        def report(phase: Phase) -> None:
            if task.released:
                raise Withdrawn
            now = time.monotonic()
            if now - task.said_at >= HEARTBEAT_SECONDS:
                task.said_at = now
                self._say(Heartbeat(task.work.job_id, phase, 0.0, None))

        outcome: Prepared | BaseException
        try:
            _be_nice()
            self._engine.check(task.work.spec.transcribe)
            outcome = prepare(task.work, self._detector, report)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the loop must hear it
            outcome = error
        self._prepared.append((task, outcome))
        with suppress(BlockingIOError):  # the pipe is full: the loop has enough to wake up for
            os.write(self._wake, b"\0")

    def _take_prepared(self) -> None:
        while self._prepared:
            task, outcome = self._prepared.popleft()
            if task.released:  # asked for after its thread's last report
                outcome = Withdrawn()
            if isinstance(outcome, BaseException):
                self._fail(task, outcome)
            else:
                self._line_up(task, outcome)

    def _line_up(self, task: Task, prepared: Prepared) -> None:
        transcribe = task.work.spec.transcribe
        task.prepared = prepared
        try:
            with disk_errors():
                task.journal = Journal(task.work.directory, self._made_from(task.work, prepared))
        except (OSError, SpoolFull) as error:
            self._fail(task, error)
            return
        names = speakers(prepared.samples, task.work.spec.media.speakers)
        task.recording = Recording(prepared.windows, prepared.samples.size, transcribe.language, names)
        if task.work.spec.output.partial:
            task.partial = Partial(task.work)
        self._report(task, force=True)

    def _made_from(self, work: Work, prepared: Prepared) -> dict[str, Any]:
        return {
            "sha256": prepared.decoded.sha256,
            "engine": dataclasses.asdict(self._engine.info),
            "options": work.spec.transcribe.model_dump(),
            "windows": prepared.windows,
        }

    def _submit(self) -> None:
        """Keep the engine supplied: a little more than it can hold, so that those who leave are followed by several."""
        wanted = self._engine.capacity + max(1, self._engine.capacity // 4)
        waiting = collections.deque(task for task in self._tasks.values() if task.recording is not None)
        while waiting and self._engine.pending < wanted:
            task = waiting.popleft()
            span = self._next_span(task)
            if span is None:
                if task.recording is not None and task.recording.is_done:
                    self._finish(task)
                continue
            assert task.prepared is not None
            audio = task.prepared.cut(span.start, span.end).copy()  # torch warns of memory that it may not write
            window = AudioWindow(audio, task.work.spec.transcribe, span.language)
            try:
                with engine_errors():
                    handle = self._engine.submit(window)
            except WhisperdError as error:
                self._fail(task, error)
                continue
            task.tickets[handle] = span
            self._tasks.move_to_end(task.work.job_id)
            waiting.append(task)

    def _keep_texts(self) -> None:
        for task in self._tasks.values():
            if task.partial is not None and task.recording is not None:
                task.partial.keep(task.recording)

    def _next_span(self, task: Task) -> Span | None:
        """The next span that the journal does not know."""
        assert task.recording is not None
        assert task.journal is not None
        while (span := task.recording.next()) is not None:
            known = task.journal.find(span.key)
            if known is None:
                return span
            task.resumed += 1
            task.recording.take(span, known)
        return None

    def _step(self) -> None:
        try:
            with engine_errors():
                finished = self._engine.step()
        except OutOfMemory as error:
            with engine_errors():
                can_continue = self._engine.shrink()
            if not can_continue:
                raise EngineBroken(error) from error
            self._shrunk += 1
            _log.warning("out of memory: %d windows at once from now on", self._engine.capacity)
            return
        by_task: dict[str, list[tuple[Span, DecodedWindow]]] = {}
        for ticket, decoded in finished:
            for job_id, task in self._tasks.items():
                if ticket in task.tickets:
                    by_task.setdefault(job_id, []).append((task.tickets.pop(ticket), decoded))
        for job_id, done in by_task.items():
            self._record(self._tasks[job_id], done)
        for task in tuple(self._tasks.values()):
            self._report(task)

    def _record(self, task: Task, done: list[tuple[Span, DecodedWindow]]) -> None:
        assert task.recording is not None
        assert task.journal is not None
        try:
            with disk_errors():
                task.journal.add([(span.key, decoded) for span, decoded in done])
        except (OSError, SpoolFull) as error:
            self._fail(task, error)
            return
        for span, decoded in done:
            task.recording.take(span, decoded)
        self._report(task)
        if task.recording.is_done:
            self._finish(task)

    def _report(self, task: Task, *, force: bool = False) -> None:
        now = time.monotonic()
        if task.recording is not None and (force or now - task.said_at >= HEARTBEAT_SECONDS):
            task.said_at = now
            assert task.prepared is not None
            duration = task.prepared.decoded.duration_seconds
            done = task.recording.processed_seconds
            used = device_bytes(self._engine.info.device)
            self._say(Heartbeat(task.work.job_id, Phase.TRANSCRIBING, done, duration, used))

    def _finish(self, task: Task) -> None:
        assert task.recording is not None
        assert task.prepared is not None
        transcript = task.recording.transcript()
        transcript.quality["resumed_windows"] = task.resumed
        if self._shrunk:
            transcript.quality["batch_size"] = self._engine.capacity
        decoded = task.prepared.decoded
        try:
            outputs = render(task.work, decoded, transcript, self._engine.info)
        except (OSError, WhisperdError) as error:
            self._fail(task, error)
            return
        info = self._engine.info
        result = Result(
            duration_seconds=decoded.duration_seconds,
            processing_seconds=time.monotonic() - task.started,
            sha256=decoded.sha256,
            language=transcript.language,
            language_probability=transcript.language_probability,
            engine=info.engine,
            model=info.model,
            device=info.device,
            outputs=outputs,
            quality=transcript.quality,
        )
        self._drop(task)
        self._say(Finished(task.work.job_id, result))

    def _release(self, task: Task) -> None:
        """Give a job back; while it is being prepared, its thread does so at its next report."""
        task.released = True
        if task.recording is not None:
            self._drop(task)
            self._say(Released(task.work.job_id))

    def _fail(self, task: Task, error: BaseException) -> None:
        self._drop(task)
        if isinstance(error, Withdrawn):
            self._say(Released(task.work.job_id))
            return
        if not isinstance(error, WhisperdError):
            _log.error("job %s failed in a way nobody foresaw", task.work.job_id, exc_info=error)
        self._say(Failed(task.work.job_id, Failure.of(error, stage="transcribing")))

    def _drop(self, task: Task) -> None:
        for ticket in task.tickets:
            self._engine.withdraw(ticket)
        if task.journal is not None:
            task.journal.close()
        self._tasks.pop(task.work.job_id, None)
        self._trimmer.tick()


def _be_nice() -> None:
    """Lower the priority of this thread, of which Linux keeps the nice value apart (setpriority(2), BUGS), if that is allowed.

    Relative to what the daemon was started with: a value below that is refused to everybody but root.
    """
    thread = threading.get_native_id()
    with suppress(OSError):
        nice = os.getpriority(os.PRIO_PROCESS, thread) + PREPARING_NICE
        os.setpriority(os.PRIO_PROCESS, thread, min(nice, NICEST))
