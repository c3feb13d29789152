"""One worker process as the supervisor sees it: starts it, sends and receives messages, and stops it if it hangs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from enum import Enum, auto
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from whisperd.core.devices import Place, unlisted
from whisperd.core.errors import WorkerDied
from whisperd.core.job import Failure
from whisperd.protocol import Boot, Quit, Release, SupervisorEnd, Work

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from whisperd.core.options import EngineOptions
    from whisperd.protocol import FromWorker, ToWorker

RUNGS = ("asked to give the job back", "SIGABRT, so that it says where it hangs", "SIGKILL")
RUNG_SECONDS = (10.0, 5.0, 5.0)


class WorkerState(Enum):
    """The state of a worker."""

    BOOTING = auto()
    READY = auto()  # with jobs or without
    ENDING = auto()  # told to quit
    RETIRED = auto()  # its engine failed: it has been killed


class WorkerProcess:
    """A worker's process and the pipe to it: a new interpreter that inherits only one end of a socket pair.

    It leads a process group of its own, so that its ffmpeg ends with it and a Ctrl-C on the terminal reaches neither.

    Raises:
        OSError: the machine has no process, memory or descriptor to spare; nothing is left behind.
    """

    def __init__(self, options: EngineOptions, place: Place) -> None:
        self.place = place
        self.killed_because = ""  # completes "was killed because it"
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.process = subprocess.Popen(
                # -P: a file called torch.py in the current directory must not be what `import torch` finds
                [sys.executable, "-P", "-m", "whisperd.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=_environment(place),
                start_new_session=True,
            )
            try:
                self.pidfd = os.pidfd_open(self.process.pid)
            except OSError:  # EMFILE: nobody would ever end or reap it
                self.process.kill()
                self.process.wait()
                raise
            self.connection = SupervisorEnd(socket.socket(fileno=ours.detach()))
        device = place.device
        own = replace(options, device=device.asked or device.name, threads=place.threads)
        self.connection.send(Boot(own, place.cpus, device.name if device.visible else ""))

    @property
    def pid(self) -> int:
        """The process id of the worker, and of its process group."""
        return self.process.pid

    def has_ended(self) -> bool:
        """Whether the process has ended, so that `reap` does not block (pidfd_open(2))."""
        return bool(wait([self.pidfd], timeout=0))

    def resident_bytes(self) -> int:
        """The resident memory of the worker (proc(5), /proc/pid/statm); 0 if it has ended."""
        try:
            with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0

    def receive(self, now: float, *, has_ended: bool) -> Iterator[FromWorker]:
        """Yield the messages that have arrived.

        Raises:
            ProtocolError: the worker sent something else.
        """
        return self.connection.receive(now, has_ended=has_ended)

    def distrust(self, reason: str) -> None:
        """Kill the worker and ignore further messages."""
        self.killed_because = reason
        self.connection.close()
        self.kill()

    def kill(self) -> None:
        """Kill the worker and its ffmpeg."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> str:
        """Collect an ended process and kill the rest of its group; returns how it ended."""
        self.kill()  # before the wait: until then its group's number cannot be another's
        status = self.process.wait()
        self.connection.close()
        os.close(self.pidfd)
        return f"was killed because it {self.killed_because}" if self.killed_because else describe_exit(status)


@dataclass(slots=True)
class GivenJob:
    """A job that a worker has.

    Attributes:
        work: what the worker was told.
        given_at: when.
        deadline: when it is taken away.
        doom: why it is being taken away; None: it is not.
        is_asked_back: whether the worker was asked to give it back.
    """

    work: Work
    given_at: float
    deadline: float
    doom: Failure | None = None
    is_asked_back: bool = False


class Ladder:
    """The means to stop a worker, one after the other: `RUNGS`."""

    def __init__(self) -> None:
        self._rung = len(RUNGS)
        self._next_at = 0.0

    def begin(self, now: float) -> None:
        """Start with the first means."""
        self._rung, self._next_at = 0, now

    def climb(self, now: float) -> int | None:
        """The number of the means to use now; None if it is too early, or all have been used."""
        if now < self._next_at or self._rung >= len(RUNGS):
            return None
        rung, self._rung = self._rung, self._rung + 1
        self._next_at = now + RUNG_SECONDS[rung]
        return rung


class Child(WorkerProcess):
    """One worker as the supervisor sees it: its place and state, the jobs that it has, and their deadlines.

    Args:
        number: its slot in the pool.
        options: the engine that jobs ask for.
        now: the time.
        place: device, threads and processors; None: those of the options.

    Raises:
        OSError: as `WorkerProcess`.
    """

    def __init__(self, number: int, options: EngineOptions, now: float, place: Place | None = None) -> None:
        super().__init__(options, place or Place(unlisted(options.device)[0], options.threads))
        self.number = number
        self.options = options
        self.state = WorkerState.BOOTING
        self.jobs: dict[str, GivenJob] = {}  # by id
        self.jobs_given = 0  # since it was started
        self.is_reserved = False  # for the one job that it has
        self.heard_at = now
        self.started_at = now
        self.free_since = now
        self.device = ""  # what it runs on, once it is ready ...
        self.device_bytes: int | None = None  # ... and how much memory is in use there, of a GPU
        self.worn = False  # to be replaced once it has no job
        self.must_end_at: float | None = None  # when it is killed if it is still there
        self._ladder = Ladder()

    @property
    def dooms(self) -> dict[str, Failure]:
        """The jobs that are being taken away from the worker, and why."""
        return {job_id: job.doom for job_id, job in self.jobs.items() if job.doom is not None}

    def send(self, message: ToWorker) -> None:
        """Send a message; a worker that has ended, or does not read, is noticed elsewhere."""
        if isinstance(message, Release) and message.job_id in self.jobs:
            self.jobs[message.job_id].is_asked_back = True
        self.connection.send(message)

    def assign(self, work: Work, now: float, allowed_seconds: float) -> None:
        """Give the worker a job."""
        if not self.jobs:
            self.heard_at = now
        self.jobs[work.job_id] = GivenJob(work, now, now + allowed_seconds)
        self.jobs_given += 1
        self.send(work)

    def allow(self, job_id: str, seconds: float) -> None:
        """Set how long a job may take, from the moment it was given to the worker."""
        job = self.jobs[job_id]
        job.deadline = job.given_at + seconds

    def drop(self, job_id: str, now: float) -> None:
        """Forget a job that has ended."""
        self.jobs.pop(job_id, None)
        if not self.jobs:
            self.free_since, self.is_reserved = now, False

    def quit(self) -> None:
        """Ask an idle worker to end."""
        self.state = WorkerState.ENDING
        self.send(Quit())

    def release(self) -> None:
        """Ask the worker to give all its jobs back."""
        for job_id in self.jobs:
            self.send(Release(job_id))

    def doom(self, job_ids: Iterable[str], reason: Failure, now: float) -> None:
        """Begin to stop the worker because of jobs; `climb` takes stronger and stronger means."""
        if not self.dooms:
            self._ladder.begin(now)
        for job_id in job_ids:
            self.jobs[job_id].doom = reason

    def doom_the_late(self, heartbeat_seconds: float, now: float) -> None:
        """Begin to stop the worker for jobs past their deadline, or for all of them if it was silent for too long."""
        silent = now - self.heard_at
        if silent > heartbeat_seconds:
            hint = "raise pool.heartbeat_seconds if the machine is just slow"
            self.doom(
                self.jobs.keys() - self.dooms.keys(), _timeout(f"no sign of progress for {silent:.0f} s", hint), now
            )
        for job_id, job in self.jobs.items():
            if now > job.deadline and job.doom is None:
                taken = f"not done after {now - job.given_at:.0f} s"
                self.doom([job_id], _timeout(taken, "raise pool.deadline_factor, or use a smaller model"), now)

    def climb(self, now: float) -> str | None:
        """Use the next means to stop the worker if it is time: release, SIGABRT, SIGKILL; returns which one."""
        if not self.dooms or (rung := self._ladder.climb(now)) is None:
            return None
        if rung == 0:
            for job_id in self.dooms:
                self.send(Release(job_id))
        elif rung == 1:
            self.process.send_signal(signal.SIGABRT)
        else:
            self.kill()
        return RUNGS[rung]


def describe_exit(status: int) -> str:
    """Describe an exit status in words; a negative one is a signal, as in `subprocess`."""
    if status >= 0:
        return f"exited with status {status}"
    name = signal.Signals(-status).name
    return f"was killed by {name}" + (", perhaps out of memory" if -status == signal.SIGKILL else "")


def death_of(how: str, *, is_distrusted: bool = False) -> Failure:
    """Make the failure of a job whose worker ended."""
    hint = "if it ran out of memory (the machine's, or MemoryMax= of the unit), use a smaller model or fewer workers; the journal may say more"
    if is_distrusted:
        hint = "a recording may be meant to harm: keep whisperd and ffmpeg up to date, and report it if this one does so again"
    return Failure.of(WorkerDied(f"the worker {how} while it had this job", hint=hint, stage="transcribing"))


def _environment(place: Place) -> dict[str, str]:
    """Return the environment of a worker: it shows one GPU, and limits thread pools before torch, OpenMP and BLAS are loaded."""
    count = str(place.threads)
    return {
        **os.environ,
        **({"CUDA_VISIBLE_DEVICES": place.device.visible} if place.device.visible else {}),
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "NUMBA_NUM_THREADS": count,
        # A thread of libgomp that waits for another spins for milliseconds, and where something else wants the core, ffmpeg
        # or a second worker, keeps it from the very thread it waits for: beside one other busy process on two cores, 50
        # sentences took 29, 37, 44 and 70 s with counts of 2000, 4000, 10000 and 20000; alone 12 to 14 s with 2000 as
        # with 20000. One that goes to sleep must be woken, which takes long on some virtual machines: on 28 minutes of
        # readings it slept 65,000 to 94,000, 19,000, 5,000 and 1,500 times. 4000 are 40 microseconds.
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "4000"),
    }


def _timeout(message: str, hint: str) -> Failure:
    return Failure("timeout", message, hint, retryable=True, stage="transcribing")
