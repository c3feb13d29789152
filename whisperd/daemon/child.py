"""One worker process as the supervisor sees it: starts it, sends and receives messages, and stops it if it hangs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from enum import Enum, auto
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

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


class Child:
    """One worker process: a new interpreter that inherits only one end of a socket pair.

    It leads a process group of its own, so that its ffmpeg ends with it and a Ctrl-C on the terminal reaches neither.

    Raises:
        OSError: the machine has no process, memory or descriptor to spare; nothing is left behind.
    """

    def __init__(self, number: int, options: EngineOptions, now: float) -> None:
        self.number = number
        self.options = options
        self.state = WorkerState.BOOTING
        self.works: dict[str, Work] = {}
        self.jobs_given = 0  # since it was started
        self.is_reserved = False  # for the one job that it has
        self.deadlines: dict[str, float] = {}
        self.given_at: dict[str, float] = {}
        self.heard_at = now
        self.started_at = now
        self.free_since = now
        self.device = ""  # what it runs on, once it is ready ...
        self.device_bytes: int | None = None  # ... and how much memory is in use there, of a GPU
        self.worn = False  # to be replaced once it has no job
        self.dooms: dict[str, Failure] = {}  # jobs that are being taken away from it, and why
        self.asked_back: set[str] = set()  # jobs that it was asked to give back
        self.must_end_at: float | None = None  # when it is killed if it is still there
        self.killed_because = ""  # completes "was killed because it"
        self._rung = 0
        self._next_rung_at = 0.0
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.process = subprocess.Popen(
                # -P: a file called torch.py in the current directory must not be what `import torch` finds
                [sys.executable, "-P", "-m", "whisperd.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=_environment(options.threads),
                start_new_session=True,
            )
            try:
                self.pidfd = os.pidfd_open(self.process.pid)
            except OSError:  # EMFILE: nobody would ever end or reap it
                self.process.kill()
                self.process.wait()
                raise
            self.connection = SupervisorEnd(socket.socket(fileno=ours.detach()))
        self.send(Boot(options))

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

    def send(self, message: ToWorker) -> None:
        """Send a message; a worker that has ended, or does not read, is noticed elsewhere."""
        if isinstance(message, Release):
            self.asked_back.add(message.job_id)
        self.connection.send(message)

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

    def assign(self, work: Work, now: float, allowed_seconds: float) -> None:
        """Give the worker a job."""
        if not self.works:
            self.heard_at = now
        self.works[work.job_id] = work
        self.jobs_given += 1
        self.given_at[work.job_id] = now
        self.allow(work.job_id, allowed_seconds)
        self.send(work)

    def allow(self, job_id: str, seconds: float) -> None:
        """Set how long a job may take, from the moment it was given to the worker."""
        self.deadlines[job_id] = self.given_at[job_id] + seconds

    def drop(self, job_id: str, now: float) -> None:
        """Forget a job that has ended."""
        books: tuple[dict[str, Any], ...] = (self.works, self.deadlines, self.given_at, self.dooms)
        for each in books:
            each.pop(job_id, None)
        self.asked_back.discard(job_id)
        if not self.works:
            self.free_since, self.is_reserved = now, False

    def quit(self) -> None:
        """Ask an idle worker to end."""
        self.state = WorkerState.ENDING
        self.send(Quit())

    def release(self) -> None:
        """Ask the worker to give all its jobs back."""
        for job_id in self.works:
            self.send(Release(job_id))

    def doom(self, job_ids: Iterable[str], reason: Failure, now: float) -> None:
        """Begin to stop the worker because of a job; `climb` takes stronger and stronger means."""
        if not self.dooms:
            self._rung, self._next_rung_at = 0, now
        self.dooms.update(dict.fromkeys(job_ids, reason))

    def doom_the_late(self, heartbeat_seconds: float, now: float) -> None:
        """Begin to stop the worker for jobs past their deadline, or for all of them if it was silent for too long."""
        silent = now - self.heard_at
        if silent > heartbeat_seconds:
            hint = "raise pool.heartbeat_seconds if the machine is just slow"
            self.doom(
                self.works.keys() - self.dooms.keys(), _timeout(f"no sign of progress for {silent:.0f} s", hint), now
            )
        for job_id, deadline in self.deadlines.items():
            if now > deadline and job_id not in self.dooms:
                taken = f"not done after {now - self.given_at[job_id]:.0f} s"
                self.doom([job_id], _timeout(taken, "raise pool.deadline_factor, or use a smaller model"), now)

    def climb(self, now: float) -> str | None:
        """Use the next means to stop the worker if it is time: release, SIGABRT, SIGKILL; returns which one."""
        if not self.dooms or now < self._next_rung_at or self._rung >= len(RUNGS):
            return None
        rung, self._rung = self._rung, self._rung + 1
        self._next_rung_at = now + RUNG_SECONDS[rung]
        if rung == 0:
            for job_id in self.dooms:
                self.send(Release(job_id))
        elif rung == 1:
            self.process.send_signal(signal.SIGABRT)
        else:
            self.kill()
        return RUNGS[rung]

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


def _environment(threads: int) -> dict[str, str]:
    """Return the environment of a worker; it limits thread pools before torch, OpenMP and BLAS are loaded."""
    count = str(threads)
    return {
        **os.environ,
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
