"""What each process of whisperd, supervisor or worker, does for itself: it logs to stderr, returns free memory, and looks at the machine.

Under systemd each line starts with `<N>`, its syslog priority (sd-daemon(3)), so that `journalctl -p err` shows exactly
what a person must act on.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

JOURNAL = "/run/systemd/journal/socket"
JOB_FIELD = "WHISPERD_JOB"
TRIM_SECONDS = 60.0  # trimmed pages that are needed again cost page faults, about 10 ms for a model's activations
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # malloc_trim(3); only glibc has it


def set_up_logging(level: str = "info") -> None:
    """Send log records to the journal, or with the time to stderr, if that is a terminal or a file.

    An uncaught exception becomes a record too, since the journal would not show Python's own traceback as an error.
    """
    handler = JobFieldHandler() if _leads_to_systemd(sys.stderr.fileno()) else logging.StreamHandler(sys.stderr)
    if "JOURNAL_STREAM" in os.environ or "NOTIFY_SOCKET" in os.environ:
        handler.setFormatter(PrefixFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("watchdog").propagate = False  # whisperd logs what matters of its warnings itself
    logging.getLogger("whisperd").setLevel(level.upper())
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


class JobFieldHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Sends what is logged about a job to the journal, with the id of the job as field `WHISPERD_JOB`, and all else to stderr.

    The protocol is that of https://systemd.io/JOURNAL_NATIVE_PROTOCOL. What the journal does not take at once goes to stderr too:
    the loop must not wait for it.
    """

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_UNIX, kind)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; `extra={"job": id}` names its job."""
        job_id = getattr(record, "job", None)
        if not job_id or not self._is_sent(record, job_id):
            super().emit(record)

    def _is_sent(self, record: logging.LogRecord, job_id: str) -> bool:
        values = {
            "MESSAGE": logging.Formatter("%(message)s").format(record),
            "PRIORITY": str(_PRIORITY.get(record.levelno, 6)),
            "SYSLOG_IDENTIFIER": "whisperd",
            JOB_FIELD: job_id,
        }
        fields = ((key.encode(), text.encode("utf-8", "backslashreplace")) for key, text in values.items())
        data = b"".join(key + b"\n" + len(text).to_bytes(8, "little") + text + b"\n" for key, text in fields)
        try:
            self._socket.sendto(data, JOURNAL)
        except OSError:
            return False
        return True


def _leads_to_systemd(fd: int) -> bool:
    """Whether a descriptor leads to the journal, as systemd tells its services (systemd.exec(5), `JOURNAL_STREAM`)."""
    status = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class PrefixFormatter(logging.Formatter):
    """Puts the priority before each line for the journal (`<3>message`), so that no line of a traceback counts as info."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record as lines for the journal."""
        prefix = f"<{_PRIORITY.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines() or [""])


class Trimmer:
    """Returns the memory that malloc keeps for later to the system, at most once a minute.

    Jobs of mixed sizes leave holes that glibc keeps, more with every thread: over thousands of jobs this looks like a leak
    and takes as much memory.
    """

    def __init__(self) -> None:
        self._trimmed_at = time.monotonic()

    def tick(self) -> None:
        """Trim if a minute has passed; call it at the end of a job, or as often as you like."""
        now = time.monotonic()
        if _malloc_trim is not None and now - self._trimmed_at >= TRIM_SECONDS:
            self._trimmed_at = now
            _malloc_trim(0)


def _uncaught(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    if error is not None and not issubclass(kind, SystemExit):  # a thread that ends with SystemExit is no error
        logging.getLogger("whisperd").critical("unexpected error", exc_info=(kind, error, traceback))


def processor_name() -> str:
    """Return the name of the processor as the kernel gives it (proc(5), `cpuinfo`)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return "unknown processor"


def free_memory_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return how much more memory this process may use; None if the kernel does not say.

    That is what the machine has left, swap included, or less if a control group limits it, as `MemoryMax=` of systemd does
    (proc(5), `meminfo`; https://docs.kernel.org/admin-guide/cgroup-v2.html).
    """
    try:
        meminfo = _numbers(proc / "meminfo")
        free = 1024 * (meminfo["MemAvailable"] + meminfo.get("SwapFree", 0))
        lines = (proc / "self/cgroup").read_text("utf-8").splitlines()
    except (OSError, KeyError):
        return None
    group = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    folder = cgroups / group
    while folder != cgroups and cgroups in folder.parents:
        with contextlib.suppress(OSError, KeyError, ValueError):  # without a limit the file says "max"
            limit = int((folder / "memory.max").read_text("utf-8"))
            used = int((folder / "memory.current").read_text("utf-8"))
            reclaimable = _numbers(folder / "memory.stat")["inactive_file"]
            free = min(free, max(0, limit - used + reclaimable))
        folder = folder.parent
    return free


def _numbers(path: Path) -> dict[str, int]:
    """Read lines of a name and a number."""
    fields = (line.replace(":", " ").split() for line in path.read_text("utf-8").splitlines())
    return {each[0]: int(each[1]) for each in fields if len(each) > 1 and each[1].isdigit()}
