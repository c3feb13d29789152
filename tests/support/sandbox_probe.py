"""Run in place of the daemon, inside its sandbox: tries what the sandbox forbids and what the daemon needs.

`sandbox_probe.py FILE PROBE...` writes to FILE (`-`: standard output) a JSON object of probe name to what came of it: what
it returned, or the name of an errno, or that of the signal that killed it. Each probe runs in a process of its own.
Without the sandbox, as root, each attempt succeeds; that is tried too, so nothing here may harm the machine.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import grp
import json
import mmap
import os
import platform
import resource
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

SPOOL = Path("/var/spool/whisperd")
OPEN = Path("/srv/open")  # a directory of the lab in which everybody may write
CLONE_NEWUSER = 0x10000000  # sched.h
SYSLOG_ACTION_SIZE_BUFFER = 10  # syslog(2)
PER_LINUX32 = 8  # personality(2)
SESSION_KEYRING, KEYCTL_DESCRIBE = -3, 6  # keyctl(2)
KEYCTL = {"x86_64": 250, "aarch64": 219}
I386_GETPID = bytes.fromhex("b814000000 cd80 c3")  # mov eax, 20; int 0x80; ret
MESSAGE_QUEUE = 0x77687370
ADDRESS = OPEN / "address"  # tells where somebody outside listens
MANY_TASKS = 4200


def call(name: str, *arguments: object) -> bool:
    """A function of libc by name."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
    return True


def opens(path: str | Path, flags: int = os.O_RDONLY) -> bool:
    """Open and close; nothing is read or written."""
    os.close(os.open(path, flags))
    return True


def written(folder: str | Path) -> bool:
    """Make a new file in a folder and remove it."""
    with tempfile.NamedTemporaryFile(dir=folder):
        return True


def own_chown() -> bool:
    """Give a file of one's own to oneself."""
    with tempfile.TemporaryFile() as file:
        os.fchown(file.fileno(), -1, -1)
    return True


def new_file() -> os.stat_result:
    """What a file that the daemon makes looks like."""
    path = Path(tempfile.gettempdir()) / f"new-{os.getpid()}"
    path.write_text("x")
    return path.stat()


def disk_priority() -> str:
    """Class and level in the queue of a disk."""
    return subprocess.run(["ionice"], capture_output=True, text=True, check=True).stdout.strip()


def tasks() -> int:
    """How many threads can be had before EAGAIN, up to MANY_TASKS."""
    threading.stack_size(1 << 15)
    end = threading.Event()
    try:
        for number in range(MANY_TASKS):
            try:
                threading.Thread(target=end.wait, daemon=True).start()
            except RuntimeError:
                return number
    finally:
        end.set()
    return MANY_TASKS


def is_memory_limited() -> bool:
    """Whether its cgroup may have less than all of the machine's memory."""
    groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for _, controllers, path in groups:
        for file in (
            Path(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"),
            Path(f"/sys/fs/cgroup{path}/memory.max"),
        ):
            if file.exists() and ("memory" in controllers.split(",") or not controllers):
                limit = file.read_text().strip()
                return limit != "max" and int(limit) < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    raise OSError(errno.ENOTSUP, "no memory controller")


def opens_socket(family: int) -> bool:
    """Make a socket of a kind."""
    socket.socket(family, socket.SOCK_DGRAM).close()
    return True


def send_packet() -> bool:
    """Send a packet to this machine, where nobody waits for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        return sender.sendto(b"x", ("127.0.0.1", 9)) == 1


def reach_outside() -> bool:
    """Speak to a process outside; its abstract address belongs to a network namespace (unix(7))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect("\0" + ADDRESS.read_text())
    return True


def capabilities() -> list[str]:
    """Effective ones, and those that can ever be had."""
    lines = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return [lines["CapEff"], lines["CapBnd"]]


def gains_privileges() -> bool:
    """Start a program that belongs to root and has the setuid bit."""
    result = subprocess.run([OPEN / "id", "-u"], capture_output=True, text=True, check=True)
    return result.stdout.strip() == "0"


def setuid_bit() -> bool:
    """Make a program that would run as its owner for whoever starts it."""
    with tempfile.NamedTemporaryFile() as file:
        os.fchmod(file.fileno(), 0o4755)
    return True


def make_cgroup() -> bool:
    """Make a control group, as one does to escape from limits."""
    root = Path("/sys/fs/cgroup")
    hierarchy = root if (root / "cgroup.procs").exists() else root / "systemd"
    folder = hierarchy / f"probe-{os.getpid()}"
    folder.mkdir()
    folder.rmdir()
    return True


def session_keyring() -> str:
    """The name of the keyring of its session: `_ses` is one of its own, `_uid_ses.0` that of a user."""
    name = ctypes.create_string_buffer(200)
    call("syscall", KEYCTL[platform.machine()], KEYCTL_DESCRIBE, SESSION_KEYRING, name, len(name))
    return name.value.decode().rsplit(";", 1)[1]


def foreign_system_call() -> bool:
    """Call the kernel as a 32-bit program does, past a filter that knows only the native calls."""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(I386_GETPID)
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)() == os.getpid()


def lease() -> bool:
    """Ask whether anybody has a file of another user open for writing."""
    with (OPEN / "of-root").open("rb") as file:
        return fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK) == 0


def leave_shared_memory() -> bool:
    """Leave a piece of shared memory behind (shm_overview(7))."""
    Path("/dev/shm/whisperd-probe").write_text("x")
    return True


def folder_keeps_group() -> bool:
    """Make a folder under one that hands its group down."""
    (SPOOL / "outbox/alice").mkdir()
    return bool((SPOOL / "outbox/alice").stat().st_mode & stat.S_ISGID)


def claim() -> bool:
    """Move an upload as a claim does."""
    (SPOOL / "inbox/of-root").rename(SPOOL / ".work/of-root")
    return True


def who_is_connected() -> list[bool]:
    """Ask as the daemon does whether the user of the lab's session, and another one, may come back to an upload."""
    from whisperd.intake.writers import Sessions  # noqa: PLC0415  # the cheap probes do without

    return [Sessions().is_connected(uid) for uid in (4711, 4712)]


def compiled_code() -> str:
    """Load openai-whisper, let numba compile its word aligner, and oneDNN a matrix product."""
    import torch  # noqa: PLC0415  # the cheap probes do without
    from whisper.timing import dtw  # noqa: PLC0415

    torch.set_num_threads(1)
    product = torch.ones(64, 64, dtype=torch.bfloat16) @ torch.ones(64, 64, dtype=torch.bfloat16)
    return f"{product[0, 0].item():.0f} {dtw(torch.eye(3)).shape[0]}"


PROBES = {
    "foreign file": lambda: opens(OPEN / "private"),
    "group of a new file": lambda: grp.getgrgid(new_file().st_gid).gr_name,
    "mode of a new file": lambda: oct(new_file().st_mode & 0o777),
    "niceness": lambda: os.nice(0),
    "disk priority": disk_priority,
    "open files": lambda: resource.getrlimit(resource.RLIMIT_NOFILE),
    "core dumps": lambda: resource.getrlimit(resource.RLIMIT_CORE),
    "tasks": tasks,
    "memory limited": is_memory_limited,
    "write elsewhere": lambda: written(OPEN),
    "write own program": lambda: written("/opt/whisperd"),
    "write the spool": lambda: written(SPOOL / "outbox"),
    "write the weights": lambda: written("/var/lib/whisperd/models"),
    "write the cache": lambda: written("/var/cache/whisperd"),
    "cache of compilers": lambda: [os.environ.get(f"{name}_CACHE_DIR") for name in ("NUMBA", "TRITON")],
    "home of others": lambda: opens("/home/open/file"),
    "temporary file of others": lambda: opens("/tmp/of-others"),
    "device": lambda: opens("/dev/lab-null"),
    "device off the list": lambda: opens("/dev/lab-kmsg"),
    "reach outside": reach_outside,
    "internet socket": lambda: opens_socket(socket.AF_INET),
    "netlink socket": lambda: opens_socket(socket.AF_NETLINK),
    "packet": send_packet,
    "foreign chown": lambda: os.chown(OPEN / "of-root", 1, 1),
    "capabilities": capabilities,
    "lease on a foreign file": lease,
    "setuid program": gains_privileges,
    "setuid bit": setuid_bit,
    "other processes": lambda: Path("/proc/1").exists(),
    "processor's features": lambda: opens("/proc/cpuinfo"),
    "clock": lambda: call("adjtimex", ctypes.create_string_buffer(512)),
    "control group": make_cgroup,
    "host name": lambda: call("sethostname", b"lab", 3),
    "kernel log": lambda: call("klogctl", SYSLOG_ACTION_SIZE_BUFFER, None, 0),
    "kernel modules": lambda: opens("/usr/lib/modules/lab"),
    "unload a module": lambda: call("delete_module", b"no-such-module", os.O_NONBLOCK),
    "kernel tunable": lambda: opens("/proc/irq/default_smp_affinity", os.O_WRONLY),
    "session keyring": session_keyring,
    "personality": lambda: call("personality", PER_LINUX32),
    "message queue": lambda: call("msgget", MESSAGE_QUEUE, 0),
    "user namespace": lambda: call("unshare", CLONE_NEWUSER),
    # with a priority that there is not: the kernel says EINVAL, where a control group might forbid all realtime
    "realtime": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(0)),
    "foreign system call": foreign_system_call,
    "trace": lambda: call("ptrace", 0, 0, None, None),
    "own chown": own_chown,
    "leave shared memory": leave_shared_memory,
    # what the daemon needs
    "choice of cores": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
    "memory file": lambda: os.memfd_create("probe") > 0,
    "group of a new folder": folder_keeps_group,
    "claim": claim,
    "who is connected": who_is_connected,
    "compiled code": compiled_code,
}


def outcome(probe) -> object:
    """What comes of a probe in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            answer = probe()
        except OSError as error:
            answer = errno.errorcode[error.errno]
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else json.loads(text)


if __name__ == "__main__":
    target, *wanted = sys.argv[1:]
    text = json.dumps({name: outcome(PROBES[name]) for name in wanted})
    sys.stdout.write(text) if target == "-" else Path(target).write_text(text)
