"""A machine whose PID 1 is a real systemd, for tests: booted in half a second, thrown away afterwards.

The lab is a set of namespaces (mount, PID, cgroup, UTS, IPC) on an overlay of the host's own root. All that is
written in it stays in memory, and the host's services are not started in it. It has the host's network. Needs root,
systemd, D-Bus and util-linux; `unavailable()` says what is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")
SCRIPT = Path(__file__).with_suffix(".sh")
CGROUP_MOUNT = Path("/sys/fs/cgroup")
POWEROFF = signal.SIGRTMIN + 4  # systemd(1): starts poweroff.target
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_COLORS": "0",
}
NEEDED = {  # program: Debian package
    "/lib/systemd/systemd": "systemd",
    "systemctl": "systemd",
    "dbus-daemon": "dbus",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}


class LabError(Exception):
    """The lab did not boot, or did not do in time what was waited for."""


@dataclass(frozen=True)
class Bind:
    """A directory of the host shown in the lab; what is not bound is a copy of the time of the boot."""

    source: Path
    target: Path
    writable: bool = False


@dataclass
class SystemdLab:
    """A booted lab; use it in a `with` statement.

    Attributes:
        binds: directories of the host that the lab shall see live.
        target: what it boots into; `lab.target` starts no service but the journal and D-Bus.
        before: a shell command that is run in the lab before its systemd starts.
        leader: the PID of the lab's systemd as the host sees it.
    """

    binds: tuple[Bind, ...] = ()
    target: str = "lab.target"
    before: str = ""
    leader: int = 0
    _unshare: subprocess.Popen[bytes] | None = None
    _cgroups: list[Path] = field(default_factory=list)
    _directory: Path = Path()

    def __enter__(self) -> Self:
        try:
            self._boot()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.leader, POWEROFF)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._unshare.wait(timeout=20)
        self._clean_up()

    def host_path(self, path: str | Path) -> Path:
        """Where a path of the lab can be reached from the host."""
        return Path(f"/proc/{self.leader}/root") / str(path).lstrip("/")

    def run(
        self, *command: str | Path, check: bool = True, timeout_seconds: float = 60, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the lab as root and return it with its captured output.

        Raises:
            subprocess.CalledProcessError: it failed and `check` is on; the output is in the error's notes.
        """
        variables = [f"{name}={value}" for name, value in (ENVIRONMENT | environment).items()]
        enter = ["nsenter", f"--target={self.leader}", "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]
        result = subprocess.run(
            [*enter, "env", "-i", *variables, *map(str, command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
        if check and result.returncode:
            error = subprocess.CalledProcessError(result.returncode, command, result.stdout, result.stderr)
            error.add_note(result.stdout + result.stderr)
            raise error
        return result

    def systemctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`systemctl`, in the lab."""
        return self.run("systemctl", *arguments, check=check, timeout_seconds=120)

    def properties(self, unit: str) -> dict[str, str]:
        """All properties of a unit, as `systemctl show` prints them."""
        lines = self.systemctl("show", unit).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines)

    def journal(self, *arguments: str) -> list[dict[str, str]]:
        """Journal entries as mappings of field to value, oldest first; arguments as for journalctl."""
        self.run("journalctl", "--sync")
        lines = self.run("journalctl", "--output=json", "--all", "--no-pager", *arguments).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def processes(self, unit: str) -> list[int]:
        """The PIDs, as the lab sees them, of all processes of a unit."""
        group = self.properties(unit)["ControlGroup"]
        mount = "/sys/fs/cgroup" if self.host_path("/sys/fs/cgroup/cgroup.procs").exists() else "/sys/fs/cgroup/systemd"
        return [int(line) for line in self.run("cat", f"{mount}{group}/cgroup.procs").stdout.split()]

    def has_controller(self, name: str) -> bool:
        """Whether its systemd can limit `memory` or `pids`; not so where the cgroup it may use was not given that right."""
        unified = self.host_path(CGROUP_MOUNT / "cgroup.controllers")
        if unified.exists():
            return name in unified.read_text().split()
        return self.host_path(CGROUP_MOUNT / name).is_dir()

    def wait_until(self, what: str, question: Callable[[], T], timeout_seconds: float = 20) -> T:
        """Ask until the answer is true and return it.

        Raises:
            LabError: it was not within `timeout_seconds`; with the end of the journal.
        """
        deadline = time.monotonic() + timeout_seconds
        while not (answer := question()):
            if time.monotonic() > deadline:
                journal = self.run("journalctl", "--lines=30", check=False).stdout if self.leader else ""
                raise LabError(f"not within {timeout_seconds} s: {what}\n{journal}")
            time.sleep(0.05)
        return answer

    def _boot(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="whisperd-lab-"))
        mount, binds, console = (self._directory / name for name in ("mount", "binds", "console"))
        mount.mkdir()
        binds.write_text(
            "".join(f"{bind.source}\t{bind.target}\t{'rw' if bind.writable else 'ro'}\n" for bind in self.binds)
        )
        self._cgroups = [_make_cgroup(parent, self._directory.name) for parent in _own_cgroups()]
        with console.open("wb") as output:
            # If the test runner is killed, setpriv has unshare killed, and --kill-child takes the lab along.
            self._unshare = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", "bash", SCRIPT, "join", mount, binds, *self._cgroups],
                env=os.environ | {"LAB_TARGET": self.target, "LAB_BEFORE": self.before},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.wait_until("systemd is PID 1 of the lab", self._find_leader)
        self.wait_until("systemd listens", self.host_path("/run/systemd/private").exists)
        state = self.systemctl("is-system-running", "--wait", check=False).stdout.strip()
        if state not in {"running", "degraded"}:
            raise LabError(f"the lab is {state!r} after its boot")

    def _find_leader(self) -> bool:
        if self._unshare.poll() is not None:
            raise LabError(f"no boot: {(self._directory / 'console').read_text(errors='replace')[-2000:]}")
        for child in _children(self._unshare.pid):
            if _process_name(child) == "systemd":
                self.leader = child
        return bool(self.leader)

    def _clean_up(self) -> None:
        if self._unshare and self._unshare.poll() is None:
            self._unshare.kill()
            self._unshare.wait()
        for cgroup in self._cgroups:
            _remove_cgroup(cgroup)
        shutil.rmtree(self._directory, ignore_errors=True)


def unavailable() -> str:
    """Why no lab can boot on this machine; empty when it can."""
    if os.geteuid():
        return "needs root"
    missing = sorted({package for program, package in NEEDED.items() if not shutil.which(program)})
    if missing:
        return f"needs the Debian packages {' '.join(missing)}"
    if not all(os.access(cgroup, os.W_OK) for cgroup in _own_cgroups()):
        return "may not make cgroups"
    attempt = (
        "mount -t tmpfs t /mnt && cd /mnt && mkdir u w r && mount -t overlay -o lowerdir=/,upperdir=u,workdir=w o r"
    )
    command = ["unshare", "--mount", "--uts", "--ipc", "--cgroup", "--pid", "--fork", "sh", "-c", attempt]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"may not make namespaces or an overlay: {result.stderr.strip()}" if result.returncode else ""


def _own_cgroups() -> Iterable[Path]:
    """The cgroup of this process in every hierarchy that is mounted (cgroups(7))."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        hierarchies = [controllers.removeprefix("name=")] if controllers else ["", "unified"]
        for hierarchy in hierarchies:
            cgroup = CGROUP_MOUNT / hierarchy / path.lstrip("/")
            if (cgroup / "cgroup.procs").exists():
                yield cgroup
                break


def _make_cgroup(parent: Path, name: str) -> Path:
    cgroup = parent / name
    cgroup.mkdir()
    for setting in ("cpuset.cpus", "cpuset.mems"):  # version 1: nobody can enter before they are set
        if (parent / setting).exists() and (cgroup / "cgroup.clone_children").exists():
            (cgroup / setting).write_text((parent / setting).read_text())
    return cgroup


def _remove_cgroup(cgroup: Path) -> None:
    """Remove a cgroup and those below it; their processes are dead, but the kernel may need a moment."""
    for _ in range(50):
        folders = sorted(cgroup.rglob("*/"), key=lambda folder: len(folder.parts), reverse=True)
        for folder in [*folders, cgroup]:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if not cgroup.exists():
            return
        time.sleep(0.1)


def _children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _process_name(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
