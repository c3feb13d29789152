"""A spool as the installed service has it: its directories by the shipped tmpfiles.d, its group, people, and a daemon.

The daemon runs as root without any privilege but CAP_LEASE, which permissions bind like any other user: the interpreter
of the tests may lie in a home directory, where a service account could not run it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.daemon import Daemon, merged

REPOSITORY = Path(__file__).parents[2]
ROOT = "/var/spool/whisperd"  # in every shipped file
PROGRAMS = ("systemd-tmpfiles", "setpriv", "groupadd", "useradd", "userdel")
GROUND = Path("/srv")  # sshd takes no chroot below a directory that others can write to, such as /tmp
SERVICE = "setpriv --regid {group} --clear-groups --bounding-set -all,+lease sh -c"
UNHURRIED = {"intake": {"rescan_seconds": 600.0, "truncated_seconds": 600.0}}  # events alone tell of what arrives

_spools = itertools.count(1)


def needs(*programs: str):
    """Skip, with what is missing by name, where the test cannot run."""
    missing = [
        program
        for program in (*PROGRAMS, *programs)
        if shutil.which(program, path=f"{os.defpath}:/sbin:/usr/sbin") is None
    ]
    reason = f"not installed: {', '.join(missing)}" if missing else "" if os.geteuid() == 0 else "not root"
    return pytest.mark.skipif(bool(reason), reason=reason)


def run(*command, check: bool = True, **options) -> subprocess.CompletedProcess:
    """Run a program to its end; what it said is in the failure."""
    result = subprocess.run(
        [str(word) for word in command], text=True, errors="replace", stdin=options.pop("stdin", subprocess.DEVNULL),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=120, **options
    )  # fmt: skip
    assert not check or result.returncode == 0, f"{command} ended with {result.returncode}:\n{result.stdout}"
    return result


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(port: int, *command: object, log: Path):
    """A server of 127.0.0.1 that answers, as long as the block lasts."""
    with log.open("w") as said:
        process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stderr=said)
    try:
        deadline = time.monotonic() + 30.0
        while not _listens(port):
            assert process.poll() is None, f"{command} ended with {process.returncode}:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"{command} does not answer:\n{log.read_text()}"
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Person:
    """An account of this machine, made for a test."""

    name: str
    home: Path

    def run(self, *command, **options) -> subprocess.CompletedProcess:
        """Run a program as this person, with the umask of most distributions."""
        shell = ("sh", "-c", 'umask 022; exec "$0" "$@"')
        identity = ("setpriv", f"--reuid={self.name}", f"--regid={self.name}", "--init-groups", "--")
        return run(*identity, *shell, *command, cwd=self.home, **options)


class SharedSpool:
    """A context manager; the daemon is ready inside.

    Args:
        settings: what to change in the quick settings of `support.daemon`.
    """

    def __init__(self, settings: dict | None = None) -> None:
        self._settings = settings or UNHURRIED
        self._exit = contextlib.ExitStack()
        self.group = f"wd{os.getpid()}n{next(_spools)}"

    def __enter__(self):
        with self._exit:  # an error on the way takes back what was made
            self.ground = Path(
                self._exit.enter_context(tempfile.TemporaryDirectory(prefix="whisperd-test-", dir=GROUND))
            )
            self.ground.chmod(0o755)
            self.root = self.ground / "spool"
            self.add_group(self.group)
            run(
                "systemd-tmpfiles",
                "--create",
                self.shipped(
                    "systemd/whisperd.tmpfiles",
                    {"root     whisperd": f"root {self.group}", "whisperd whisperd": f"root {self.group}"},
                ),
            )
            self._script = self.ground / "script"
            self.set_engine("ok")
            settings = merged(self._settings, {"script": f"@{self._script}"})
            prefix = (*SERVICE.format(group=self.group).split(), 'umask 0007; exec "$0" "$@"')
            self.daemon = self._exit.enter_context(Daemon(self.root, settings, prefix=prefix))
            self.daemon.wait_ready()
            self._exit = self._exit.pop_all()
        return self

    def __exit__(self, *error):
        self._exit.close()

    def set_engine(self, action: str) -> None:
        """What the engine does from the next recording on; see whisperd.engine.scripted."""
        self._script.write_text(action)

    def shipped(self, name: str, changes: dict[str, str]) -> Path:
        """A copy of a shipped file that differs from it in the names of the spool and of what `changes` says."""
        text = (REPOSITORY / name).read_text()
        for old, new in {ROOT: str(self.root), **changes}.items():
            assert old in text, f"{name} does not mention {old}"
            text = text.replace(old, new)
        path = self.ground / Path(name).name
        path.write_text(text)
        return path

    def add_group(self, name: str) -> None:
        """A group for as long as the spool lives."""
        run("groupadd", name)
        self._exit.callback(run, "groupdel", name)

    def add_person(self, name: str, *groups: str, main_group: str = "", shell: str = "/bin/sh") -> Person:
        """A member of these groups; the main group is one of their own unless another is given."""
        name = f"{self.group}{name}"
        home = self.ground / name
        # the password `*` fits nothing, where sshd takes the default `!` for a locked account
        account = ["--password", "*", "--shell", shell, "--home-dir", home, "--groups", ",".join(groups)]
        account += ["--no-user-group", "--gid", main_group] if main_group else ["--user-group"]
        run("useradd", *account, name)
        self._exit.callback(run, "userdel", name)
        home.mkdir()
        shutil.chown(home, name)
        return Person(name, home)

    @functools.cached_property
    def member(self) -> Person:
        """Somebody whom `usermod -aG` let in."""
        return self.add_person("alice", self.group)
