"""The errors that whisperd raises on purpose, and the exit codes that they lead to.

::

    WhisperdError            code (a stable word), hint (what the operator can do)
      ConfigError            every problem, each with its key; exit 78
      BootError              model, device, ffmpeg or spool cannot be used; exit 3
      SpoolError             the tree on disk
        SpoolLocked          another daemon owns this root; exit 75
        SpoolFull            no room: stop claiming, keep running
        ClaimRefused         the upload cannot be claimed until a person acts (permissions)
        ClaimLost            the upload changed or disappeared while it was claimed
        CorrectionRefused    a correction of a completed job cannot be made; nothing was changed
      JobError               belongs to one job: retryable, stage
        InputError           not retryable: not audio, corrupt, truncated, no speech track, too long, too big
        EngineError          retryable, on a fresh worker
          OutOfMemory        tried again with a smaller batch on a fresh worker
        JobTimeout           no heartbeat, or past its deadline
        WorkerDied           the worker process ended
        NoResources          no process can be started now: tried again later, costs no attempt

An error crosses from one process to another as a `whisperd.core.job.Failure`, never as a pickled exception.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whisperd.core.display import Position

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BOOT = 3
EXIT_LOCKED = 75
EXIT_CONFIG = 78


class WhisperdError(Exception):
    """Base of all expected errors, which are shown as one line without a traceback.

    Attributes:
        code: a stable word for programs (`error.code` in the status file).
        hint: what the operator can do about it; may be empty.
        exit_code: the exit code of a process that ends because of this error.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = EXIT_FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(WhisperdError):
    """The configuration is wrong; `problems` lists everything, each with its dotted key.

    The message has them in the order of the file, each with its position, where `positions` has one for it.
    """

    code = "config"
    exit_code = EXIT_CONFIG

    def __init__(self, source: str, problems: list[str], positions: Sequence[Position | None] = ()) -> None:
        self.source = source
        self.problems = problems
        placed = [(where, text) for where, text in zip(positions, problems, strict=False) if where]
        others = [text for number, text in enumerate(problems) if not any(positions[number : number + 1])]
        lines = "".join(f"\n  {text}" for text in [*(f"{where}: {text}" for where, text in sorted(placed)), *others])
        super().__init__(f"{source}: {len(problems)} problem{'s' if len(problems) != 1 else ''}{lines}")


class BootError(WhisperdError):
    """Model, device, ffmpeg or spool cannot be used, so that the daemon cannot start."""

    code = "boot"
    exit_code = EXIT_BOOT


class SpoolError(WhisperdError):
    """Base of errors of the spool, the tree on disk."""

    code = "spool"


class SpoolLocked(SpoolError):
    """Another daemon uses this root."""

    code = "spool_locked"
    exit_code = EXIT_LOCKED


class SpoolFull(SpoolError):
    """The disk is full: claiming stops until there is room again, everything else continues."""

    code = "spool_full"


class ClaimRefused(SpoolError):
    """The upload cannot be claimed until a person acts, for example on its permissions; it stays in the inbox."""

    code = "claim_refused"


class ClaimLost(SpoolError):
    """The upload changed, was replaced or disappeared between settling and claiming; it must settle again."""

    code = "claim_lost"


class CorrectionRefused(SpoolError):
    """A correction of a completed job cannot be made as it is; nothing was changed.

    Attributes:
        is_early: the job may still complete, so that the correction is tried again.
    """

    code = "correction_refused"

    def __init__(self, message: str, *, hint: str = "", is_early: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.is_early = is_early


class JobError(WhisperdError):
    """Base of errors that concern one job and no other.

    Attributes:
        retryable: whether another attempt can help.
        stage: the step that failed: `decoding`, `transcribing`, `publishing`.
    """

    code = "job"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", code: str = "", stage: str = "") -> None:
        super().__init__(message, hint=hint)
        self.job_code = code or type(self).code
        self.stage = stage


class InputError(JobError):
    """The recording itself cannot be transcribed; another attempt would fail in the same way.

    Codes in use: `empty`, `not_media`, `no_audio`, `no_track`, `corrupt`, `truncated`, `too_long`, `unreadable`,
    `forbidden`, `unsupported`, `bad_ticket`, `bad_options`.
    """

    code = "input"


class EngineError(JobError):
    """The engine failed: its worker ends, and another attempt on a fresh one may succeed."""

    code = "engine"
    retryable = True


class OutOfMemory(EngineError):
    """The engine ran out of memory; the next attempt uses a smaller batch on a fresh worker."""

    code = "out_of_memory"


class JobTimeout(JobError):
    """The job sent no heartbeat for too long, or exceeded its deadline."""

    code = "timeout"
    retryable = True


class WorkerDied(JobError):
    """The worker process ended while it had this job."""

    code = "worker_died"
    retryable = True


class NoResources(JobError):
    """The machine cannot start a process now, for want of processes, memory or descriptors; this costs no attempt."""

    code = "no_resources"
    retryable = True

    ERRNOS: ClassVar = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})

    def __init__(self, what: str, error: OSError) -> None:
        hint = "the machine, or TasksMax=, LimitNPROC=, LimitNOFILE= or MemoryMax= of the unit, is at a limit; it is tried again"
        super().__init__(f"{what} cannot be started: {error.strerror}", hint=hint)
