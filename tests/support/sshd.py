"""A real sshd with the shipped snippet, on a port and with keys of its own, and clients for it."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from pathlib import Path

from support.shared_spool import Person, SharedSpool, free_port, run, serving

SEPARATION = Path("/run/sshd")  # sshd(8): must exist, whatever the configuration
CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {keys}/host
PidFile none
AuthorizedKeysFile {keys}/authorized
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
Include {snippet}
"""


class Sshd:
    """A context manager; the server answers inside."""

    def __init__(self, spool: SharedSpool) -> None:
        self._spool = spool
        self._keys = spool.ground / "keys"
        self.sftp_group = f"{spool.group}s"
        self.port = free_port()
        self.config = spool.ground / "sshd_config"

    def __enter__(self):
        self._keys.mkdir()
        (self._keys / "people").mkdir()
        for name in ("host", "identity"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._keys / name)
        (self._keys / "identity.pub").rename(self._keys / "authorized")
        self._spool.add_group(self.sftp_group)
        changes = {"Group whisperd-sftp": f"Group {self.sftp_group}", "/etc/ssh/whisperd-keys": f"{self._keys}/people"}
        snippet = self._spool.shipped("config/sshd.conf", changes)
        self.config.write_text(CONFIG.format(port=self.port, keys=self._keys, snippet=snippet))
        SEPARATION.mkdir(exist_ok=True)
        command = ("/usr/sbin/sshd", "-D", "-e", "-f", self.config)  # sshd insists on its full path
        self._serving = serving(self.port, *command, log=self._spool.ground / "sshd.log")
        self._serving.__enter__()
        return self

    def __exit__(self, *error):
        self._serving.__exit__(*error)

    def add_sftp_only(self, name: str) -> Person:
        """An account as the snippet's comment makes it."""
        person = self._spool.add_person(name, self.sftp_group, main_group=self._spool.group, shell="/usr/sbin/nologin")
        (self._keys / "people" / person.name).write_bytes((self._keys / "authorized").read_bytes())
        return person

    @property
    def identity(self) -> Path:
        """The private key that every account accepts."""
        return self._keys / "identity"

    @property
    def options(self) -> list[str]:
        """For ssh, scp and sftp alike."""
        settings = {
            "Port": self.port,
            "IdentityFile": self.identity,
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
        }
        return ["-F", "none", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]

    @property
    def ssh(self) -> str:
        """The command that rsync and sshfs are to reach the server with."""
        return shlex.join(["ssh", *self.options])

    def sftp(self, person: Person, *commands: str, check: bool = True) -> str:
        """Run a batch of commands; the first that fails ends it."""
        batch = "\n".join(commands) + "\n"
        command = ["sftp", *self.options, "-q", "-b", "-", f"{person.name}@127.0.0.1"]
        return run(*command, check=check, stdin=None, input=batch, cwd=person.home).stdout

    def rsync(self, *words: object) -> list[str]:
        """A command line of rsync over ssh."""
        return ["rsync", "-e", self.ssh, *map(str, words)]


@contextlib.contextmanager
def started(*command: object, **options):
    """A client at work; killed if it still is at the end of the block."""
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        stdin=options.pop("stdin", subprocess.DEVNULL), **options
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdin:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
