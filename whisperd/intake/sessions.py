"""Tells whether the owner of an upload is connected over SSH or FTP: such a client may come back to a file it has closed.

rclone asks for the digest, FileZilla sets dates, WinSCP renames, paramiko looks whether the file is there: all by name, some
moments after the last byte. A client that does not find the file any more reports an error, or sends it again. When the
connection has ended nobody can come back.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

KNOWN_SECONDS = 0.2  # less than the shortest quiet time: who wrote the last byte was connected by then
INIT = "1"  # hidden where the processes of others are
PROCESSES_MAX = 5000  # to look at as many takes 10 to 35 ms
TITLE_BYTES = 256
# argv[0] as the servers set it for a session; a terminal (`sshd: alice@pts/0`) is no upload
_SERVER = re.compile(
    rb"(?:\S*/)?(?:(?:sftp-server|vsftpd|proftpd|pure-ftpd)(?![\w-])|sshd(?:-session)?: \S+@(?:notty|internal-sftp))"
)


class Sessions:
    """Finds connected users by the processes of this machine, or by systemd-logind if those are hidden or too many.

    The shipped unit hides them (ProtectProc=invisible). logind does not tell an upload from a login by SSH. Where neither can
    be read anybody may be connected.
    """

    def __init__(self, processes: Path = Path("/proc"), logins: Path = Path("/run/systemd/sessions")) -> None:
        self._processes = processes
        self._logins = logins
        self._known: dict[int, tuple[float, bool]] = {}

    def is_connected(self, uid: int) -> bool:
        """Whether a user may have a connection through which files can arrive."""
        now = time.monotonic()
        known = self._known.get(uid)
        if known is None or now - known[0] >= KNOWN_SECONDS:
            self._known[uid] = known = now, self._looked_up(uid)
        return known[1]

    def _looked_up(self, uid: int) -> bool:
        try:
            numbers = [name for name in os.listdir(self._processes) if name.isdecimal()]
            if INIT in numbers and len(numbers) <= PROCESSES_MAX:
                return any(_serves(f"{self._processes}/{number}", uid) for number in numbers)
            return any(_is_remote_login(self._logins / name, uid) for name in os.listdir(self._logins))
        except OSError:
            return True


def _serves(process: str, uid: int) -> bool:
    """Whether a process serves a connection of this user."""
    try:
        if os.stat(process).st_uid != uid:
            return False
        fd = os.open(f"{process}/cmdline", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _SERVER.match(os.read(fd, TITLE_BYTES)) is not None
        finally:
            os.close(fd)
    except OSError:
        return False  # it has ended


def _is_remote_login(file: Path, uid: int) -> bool:
    """Whether a session of logind belongs to this user, comes from another machine and is not over."""
    try:
        if not file.is_file():
            return False  # a FIFO
        lines = file.read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    is_remote = fields.get("REMOTE") == "1" or fields.get("SERVICE", "").startswith("sshd")
    return fields.get("UID") == str(uid) and is_remote and fields.get("STATE") != "closing"
