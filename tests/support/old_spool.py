"""Spools as earlier releases left them when they were killed: recorded from real daemons, kept as JSON, written out again.

`python tests/support/old_spool.py CHECKOUT NAME` records one: CHECKOUT is a working tree of that release, NAME.json appears
in tests/support/old_spools.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from support.daemon import Daemon, tone

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parent / "old_spools"
WAITING = {"intake": {"settle_seconds": 20.0, "settle_seconds_proven": 20.0, "truncated_seconds": 20.0}}
TICKET = "language: fr\nformats: [txt, srt]\n"
KEPT = re.compile(
    r"(inbox|done|failed)/[^.]|outbox/(?!index\.html)|\.work/\.notices/"
    r"|\.work/[^.][^/]*/((job|result|failure)\.json|original\S*|ticket|partial\.txt|outputs/.*)$"
)


# --- writing one out ---


def restore(name: str, root: Path, *, is_a_copy: bool = False) -> dict[str, str]:
    """Write a recorded spool to `root`; returns the SHA-256 of every upload by its name in the inbox.

    The records name the inodes of the files that they are about, which no fixture can keep: they are brought up to date, as
    if the files had never been moved. With `is_a_copy` they are left as they were, as after a restore from a backup.
    """
    recorded = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    for path, file in recorded["files"].items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file["text"].encode() if "text" in file else base64.b64decode(file["base64"]))
        os.utime(target, ns=(file["mtime_ns"], file["mtime_ns"]))
    if not is_a_copy:
        for record in root.glob(".work/*/job.json"):
            _bring_up_to_date(root, record)
    return recorded["uploads"]


def _bring_up_to_date(root: Path, record: Path) -> None:
    fields = json.loads(record.read_bytes())
    original = record.parent / fields["original"]
    ticket = root / "inbox" / f"{fields['name']}{fields['ticket']}"
    if original.exists():
        fields["signature"] = _signature(original)
    if fields["ticket"] and ticket.exists():
        fields["ticket_signature"] = _signature(ticket)
    record.write_text(json.dumps(fields), "ascii")


def _signature(path: Path) -> dict[str, int]:
    status = path.stat()
    return {
        "device": status.st_dev,
        "inode": status.st_ino,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "blocks": status.st_blocks,
    }


# --- recording one ---


class Recorder:
    """Runs daemons of an earlier release, each over a spool of its own, and puts what they leave into one.

    Args:
        checkout: a working tree of that release.
        folder: where the spools are made.
    """

    def __init__(self, checkout: Path, folder: Path) -> None:
        self._environment = {"PYTHONPATH": str(checkout)}
        self._folder = folder
        self.root = folder / "all"
        self.uploads: dict[str, str] = {}
        hook = folder / "hook"
        hook.write_text("#!/bin/sh\nexit 75\n")  # try again later: what is to be told stays on record
        hook.chmod(0o755)
        self._notices = {"on_completed": [str(hook)], "on_failed": [str(hook)]}

    def run(
        self,
        names: dict[str, bool],
        settings: dict | None = None,
        *,
        at: str = "",
        seconds: float = 0.1,
        is_cut: bool = False,
        is_cancelled: bool = False,
        until: Callable[[Daemon], object] | None = None,
    ) -> None:
        """Run a daemon, upload, let it kill itself `at` a step or kill it once a condition is true; keep its spool.

        Args:
            names: of the uploads, in this order, and whether each has a ticket.
            settings: of the daemon.
            at: the failpoint.
            seconds: of audio.
            is_cut: whether only a part of the upload has arrived.
            is_cancelled: whether its end is asked for.
            until: tells when to kill it.
        """
        root = self._folder / f"spool-{len(self.uploads)}"
        daemon = Daemon(
            root,
            {"notices": self._notices} | (settings or {}),
            self._environment | {"WHISPERD_FAILPOINT": at},
        )
        with daemon:
            daemon.wait_ready()
            for name, has_ticket in names.items():
                frequency = 300.0 + 10.0 * len(self.uploads)
                aside = tone(root / ".work" / "upload", seconds, rate=8000, frequency=frequency)
                if is_cut:
                    os.truncate(aside, 1000)
                self.uploads[name] = hashlib.sha256(aside.read_bytes()).hexdigest()
                (root / "inbox" / name).parent.mkdir(parents=True, exist_ok=True)
                if has_ticket:
                    (root / "inbox" / f"{name}.yaml").write_text(TICKET)
                aside.rename(root / "inbox" / name)
                if is_cancelled:
                    (root / "inbox" / f"{name}.cancel").touch()
                if until is not None:
                    daemon.wait(lambda name=name: daemon.sidecar(name) is not None, what=f"the claim of {name}")
            if until is not None:
                daemon.wait(lambda: until(daemon), what="the state that is to be kept")
                daemon.kill()
            else:
                assert daemon.wait_exit() == -signal.SIGKILL
        shutil.copytree(root, self.root, dirs_exist_ok=True, copy_function=shutil.copy2)

    def files(self) -> dict[str, dict]:
        """What there is, but for locks, temporary files, the overview page and samples of audio."""
        found = {}
        for path in sorted(path for path in self.root.rglob("*") if path.is_file()):
            shown = str(path.relative_to(self.root))
            if KEPT.match(shown):
                found[shown] = {"mtime_ns": path.stat().st_mtime_ns, **_content(path.read_bytes())}
        return found


def _content(data: bytes) -> dict[str, str]:
    try:
        return {"text": data.decode("utf-8")} if b"\0" not in data else {"base64": base64.b64encode(data).decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _speaks(daemon: Daemon) -> bool:
    """Let the text of the running job grow, as a worker that decodes windows would; whether people can read it."""
    if (daemon.sidecar("running/r.wav") or {}).get("phase") != "transcribing":
        return False
    (record,) = (each for each in daemon.work.glob("*/job.json") if json.loads(each.read_bytes())["attempts"])
    (record.parent / "partial.txt").write_text("scripted\n")
    partial = daemon.outbox / "running/r.partial.txt"
    return partial.exists() and partial.read_text() == "scripted\n"


def _is_done(daemon: Daemon) -> bool:
    """Whether nothing is under way."""
    return not [*daemon.work.glob("[!.]*"), *daemon.inbox.glob("*/*")]


def record(checkout: Path, name: str) -> None:
    """Record what a release leaves in every state that a job can be in."""
    os.chdir(checkout)
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(checkout, Path(folder))
        fails = {"script": "raise:input"}
        slow = {"script": "slow:60", "output": {"partial": True}}
        recorder.run({"done/c.wav": True, "done/d.wav": False}, until=_is_done)
        recorder.run({"done/e.wav": True}, fails, until=_is_done)
        recorder.run(
            {"running/r.wav": False, "queued/q.wav": True, "queued/Köln 1.wav": False}, slow, seconds=0.3, until=_speaks
        )
        recorder.run({"claimed/a.wav": True}, at="claim.after_record")
        recorder.run({"claimed/m.wav": True}, at="claim.after_move")
        recorder.run({"half/h.wav": True}, at="publish.after_output")
        recorder.run({"half/n.wav": True}, at="publish.after_notice")
        recorder.run({"half/o.wav": True}, at="publish.after_original")
        recorder.run({"broken/f.wav": True}, fails, at="fail.after_record")
        recorder.run({"broken/g.wav": True}, fails, at="fail.after_notice")
        recorder.run({"cancelled/x.wav": False}, WAITING, at="cancel.after_record", is_cancelled=True)
        recorder.run({"waiting/w.wav": False}, WAITING, is_cut=True, until=bool)
        files = recorder.files()
        recorded = {"made_by": name, "uploads": recorder.uploads, "files": files}
    text = json.dumps(recorded, indent=1, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]).resolve(), sys.argv[2])
