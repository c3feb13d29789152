"""Folders of a running daemon that are taken away, closed, unmounted or read-only for a while, each with its own daemon.

The daemon has no capabilities, which no mode keeps out.
"""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from support.daemon import Daemon, tone
from support.invariants import check_spool

UNPRIVILEGED = ("setpriv", "--bounding-set", "-all")


def unavailable():
    """Why there can be no such daemon here; empty when there can."""
    if os.geteuid():
        return "needs root, to mount and to give up capabilities"
    if shutil.which("setpriv") is None:
        return "no setpriv"
    attempt = "mount -t tmpfs -o size=1m whisperd-test /mnt"
    result = subprocess.run(["unshare", "--mount", "sh", "-c", attempt], capture_output=True, text=True, check=False)
    return f"may not mount a filesystem: {result.stderr.strip()}" if result.returncode else ""


reason = unavailable()
pytestmark = pytest.mark.skipif(bool(reason), reason=reason)


def away(room):
    return f"mv {{root}}/{room} {{root}}/elsewhere", f"mv {{root}}/elsewhere {{root}}/{room}"


def closed(room, mode="0777"):
    return f"chmod 0555 {{root}}/{room}", f"chmod {mode} {{root}}/{room}"


@dataclasses.dataclass(frozen=True)
class Trouble:
    """What is done to a spool, what undoes it, what the journal says meanwhile, and how the upload ends."""

    do: str
    undo: str
    says: str
    ends: str = "completed"
    before: bool = True  # done before the upload, else while it is transcribed


NO_ENTRY, CLOSED = "No such file or directory", "Permission denied"
TROUBLES = {
    "inbox away": Trouble(*away("inbox"), "the inbox {root}/inbox is not there", before=False),
    "inbox closed": Trouble(*closed("inbox"), "permission denied: {name}"),
    "outbox away": Trouble(*away("outbox"), NO_ENTRY),
    "outbox closed": Trouble(*closed("outbox"), f"its end cannot be written, {CLOSED}"),
    "done away": Trouble(*away("done"), f"its end cannot be written, {NO_ENTRY}"),
    "done closed": Trouble(*closed("done"), f"its end cannot be written, {CLOSED}"),
    "failed away": Trouble(*away("failed"), f"its end cannot be written, {NO_ENTRY}", "failed"),
    "failed closed": Trouble(*closed("failed"), f"its end cannot be written, {CLOSED}", "failed"),
    ".work away": Trouble(*away(".work"), f"cannot claim anything: {{root}}/.work: {NO_ENTRY}"),
    ".work closed": Trouble(*closed(".work", "0700"), f"cannot claim anything: {{root}}/.work: {CLOSED}"),
    ".work away meanwhile": Trouble(*away(".work"), NO_ENTRY, before=False),
    "read-only": Trouble(
        # over the one that is there, which the open lock keeps from being remounted
        "mount --bind {root} {root} && mount -o remount,bind,ro {root}",
        "umount {root}",
        "Read-only file system",
        before=False,
    ),
    "unmounted": Trouble(
        "mount --bind {root} {root}-kept && umount --lazy {root}",
        "mount --bind {root}-kept {root}",
        "the inbox {root}/inbox is not there",
        before=False,
    ),
}


class Case:
    """One daemon over a filesystem of its own, and one trouble."""

    def __init__(self, ground: Path, trouble: Trouble) -> None:
        self.trouble, self.root = trouble, ground / "spool"
        self.root.mkdir(parents=True)
        self._sh(f"mkdir {self.root}-kept && mount -t tmpfs -o size=16m,mode=0777 whisperd-test {self.root}")
        self.script = ground / "script"
        self.script.write_text("wait\n")
        settings = {"script": f"@{self.script}", "pool": {"stop_grace_seconds": 0.0}}
        self.daemon = Daemon(self.root, settings, prefix=UNPRIVILEGED)
        self.uploads = {}

    def _sh(self, command):
        subprocess.run(["sh", "-ec", command.format(root=self.root)], check=True, capture_output=True, text=True)

    def close(self):
        for mount in (self.root, f"{self.root}-kept", self.root):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)

    def begin(self):
        """Trouble and upload, in the order that was asked for."""
        if self.trouble.before:
            self._sh(self.trouble.do)
        path = self.root / "a.wav"
        self.uploads["a.wav"] = tone(path, 1.0).read_bytes()
        path.rename(self.root / "inbox/a.wav")
        if not self.trouble.before:
            # the engine waits until the trouble is there, however busy the machine is
            # later than the start: while audio is still being written, its open file holds the mount
            self.daemon.wait(
                lambda: (self.daemon.sidecar("a.wav") or {}).get("phase") == "transcribing", what="the engine"
            )
            self._sh(self.trouble.do)
        self.script.write_text("raise:input\n" if self.trouble.ends == "failed" else "ok\n")

    def await_words(self):
        words = self.trouble.says.format(root=self.root, name="a.wav")
        self.daemon.wait(lambda: self.daemon.logged(words), what=words)

    def heal(self):
        self._sh(self.trouble.undo)

    def await_end(self):
        room = {"completed": "done", "failed": "failed"}[self.trouble.ends]
        self.daemon.wait((self.root / room / "a.wav").exists, what=f"the end after {self.trouble}")
        self.daemon.wait(lambda: not list((self.root / ".work").glob("[!.]*")), what="the end of the job")

    def outcome(self):
        """What is wrong, and how it ended; with whether the daemon lived on."""
        document = self.daemon.sidecar("a.wav")
        return check_spool(self.root, self.uploads), document["status"], document["attempts"]


@pytest.fixture
def cases():
    """All of them at once: most of each is waiting."""
    with tempfile.TemporaryDirectory(prefix="whisperd-test-") as ground, contextlib.ExitStack() as stack:
        os.chmod(ground, 0o755)
        cases = {}
        for number, (name, trouble) in enumerate(TROUBLES.items()):
            cases[name] = case = Case(Path(ground) / str(number), trouble)
            stack.callback(case.close)
            stack.enter_context(case.daemon)
        for case in cases.values():
            case.daemon.wait_ready()
        yield cases


def test_a_folder_in_trouble_is_waited_for(cases):
    """The journal names it, nothing is lost, no attempt is counted, and once it is well again everything goes on."""
    steps = [Case.begin, Case.await_words, Case.heal, Case.await_end]
    for step in steps:
        for case in cases.values():
            step(case)
    ended = {name: case.daemon.process.poll() for name, case in cases.items()}
    outcomes = {name: case.outcome() for name, case in cases.items()}

    assert outcomes == {name: ([], case.trouble.ends, 1) for name, case in cases.items()}
    assert ended == dict.fromkeys(cases)
