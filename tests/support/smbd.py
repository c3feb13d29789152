"""A real smbd with the shipped share, on a port and in directories of its own, and clients for it."""

from __future__ import annotations

import subprocess

import smbclient

from support.shared_spool import Person, SharedSpool, free_port, run, serving

PASSWORD = "tape-recorder"  # of accounts that live as long as a test
SHARE = "//127.0.0.1/whisperd"
GLOBAL = """\
[global]
    server role = standalone server
    smb ports = {port}
    interfaces = 127.0.0.1/8
    bind interfaces only = yes
    disable netbios = yes
    disable spoolss = yes
    load printers = no
    usershare path =
    map to guest = never
    smb2 max write = 65536
    private dir = {state}
    lock directory = {state}
    state directory = {state}
    cache directory = {state}
    pid directory = {state}
    ncalrpc dir = {state}/ncalrpc
    passdb backend = tdbsam:{state}/passdb.tdb
    log file = {state}/log.%m
    include = {share}
"""


class Smbd:
    """A context manager; the server answers inside."""

    def __init__(self, spool: SharedSpool) -> None:
        self._spool = spool
        self.port = free_port()
        self._config = spool.ground / "smb.conf"

    def __enter__(self):
        state = self._spool.ground / "samba"
        state.mkdir()
        share = self._spool.shipped("config/samba.conf", {"@whisperd": f"@{self._spool.group}"})
        self._config.write_text(GLOBAL.format(port=self.port, state=state, share=share))
        # Never --no-process-group: on SIGTERM smbd signals its whole group, which would be that of the tests.
        command = ("smbd", "--foreground", f"--configfile={self._config}")
        self._serving = serving(self.port, *command, log=state / "stderr")
        self._serving.__enter__()
        return self

    def __exit__(self, *error):
        smbclient.delete_session("127.0.0.1", port=self.port)
        self._serving.__exit__(*error)

    def admit(self, person: Person) -> Person:
        """Give somebody a Samba password."""
        run("smbpasswd", "-c", self._config, "-s", "-a", person.name, stdin=None, input=f"{PASSWORD}\n{PASSWORD}\n")
        return person

    def command(self, person: Person, *commands: str) -> list[str]:
        """How to run smbclient."""
        return ["smbclient", SHARE, *self._login(person), "-c", "; ".join(commands)]

    def login(self, person: Person) -> dict:
        """For the functions of the package smbclient, which know more of the protocol."""
        return {"username": person.name, "password": PASSWORD, "port": self.port}

    def _login(self, person: Person) -> tuple[str, ...]:
        return "-s", str(self._config), "-p", str(self.port), "-U", f"{person.name}%{PASSWORD}"

    def client(self, person: Person, *commands: str, check: bool = True) -> str:
        """Run smbclient to its end; returns what it said."""
        return run(*self.command(person, *commands), check=check, cwd=person.home).stdout

    def start_client(self, person: Person, *commands: str) -> subprocess.Popen:
        """A client whose standard input the test feeds."""
        return subprocess.Popen(
            self.command(person, *commands), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
