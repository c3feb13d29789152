"""Run in place of the daemon, inside its sandbox: tries what the sandbox forbids and what the daemon needs.

Writes to the file named by its argument a JSON object of probe name to what came of it, or to the name of the errno.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import socket
import stat
import sys
from pathlib import Path

SPOOL = Path("/var/spool/whisperd")
CLONE_NEWUSER = 0x10000000  # sched.h


def call(name: str, *arguments: object) -> int:
    """A function of libc by name."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
    return 0


def process_status(key: str) -> str:
    """A line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{key}:"))


def lease() -> int:
    """Ask whether anybody has a file of another user open for writing."""
    with (SPOOL / "inbox/of-root").open("rb") as file:
        return fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)


def folder_keeps_group() -> bool:
    """Make a folder under one that hands its group down."""
    (SPOOL / "outbox/alice").mkdir()
    return bool((SPOOL / "outbox/alice").stat().st_mode & stat.S_ISGID)


def claim() -> bool:
    """Move an upload as a claim does."""
    (SPOOL / "inbox/of-root").rename(SPOOL / ".work/of-root")
    return True


def compiled_code() -> str:
    """Load openai-whisper, let numba compile its word aligner, and oneDNN a matrix product."""
    import torch  # noqa: PLC0415  # the cheap probes do without
    from whisper.timing import dtw  # noqa: PLC0415

    torch.set_num_threads(1)
    product = torch.ones(64, 64, dtype=torch.bfloat16) @ torch.ones(64, 64, dtype=torch.bfloat16)
    return f"{product[0, 0].item():.0f} {dtw(torch.eye(3)).shape[0]}"


PROBES = {
    "internet socket": lambda: socket.socket(socket.AF_INET),
    "interfaces": lambda: [line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]],
    "write outside": lambda: Path("/srv/open/file").write_text("x"),
    "write own program": lambda: Path("/opt/whisperd/file").write_text("x"),
    "read a home": lambda: Path("/home/open/file").read_text(),
    "read the tmp of others": lambda: Path("/tmp/file").read_text(),
    "see a device": lambda: Path("/dev/lab-device").exists(),
    "see other processes": lambda: Path("/proc/1").exists(),
    "effective capabilities": lambda: process_status("CapEff"),
    "possible capabilities": lambda: process_status("CapBnd"),
    "new privileges forbidden": lambda: process_status("NoNewPrivs"),
    "setuid bit": lambda: (SPOOL / "outbox").chmod(0o4770),
    "user namespace": lambda: call("unshare", CLONE_NEWUSER),
    "trace": lambda: call("ptrace", 0, 0, 0, 0),
    "change of owner": lambda: os.chown(SPOOL / "outbox", -1, -1),
    "core dumps": lambda: resource.getrlimit(resource.RLIMIT_CORE)[1],
    "umask": lambda: oct(os.umask(0o007)),
    "lease on a foreign file": lease,
    "choice of cores": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
    "memory file": lambda: os.memfd_create("probe") > 0,
    "setgid of a new folder": folder_keeps_group,
    "claim": claim,
    "cache": lambda: Path(os.environ["NUMBA_CACHE_DIR"]).mkdir(),
    "compiled code": compiled_code,
}


def outcome(probe) -> object:
    """What a probe returns; for an OSError the name of its errno."""
    try:
        return probe()
    except OSError as error:
        return errno.errorcode[error.errno]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps({name: outcome(probe) for name, probe in PROBES.items()}, default=str))
