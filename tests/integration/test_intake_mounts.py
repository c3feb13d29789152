"""Filesystems that come and go over the inbox of a running daemon: noticed, said once, and nothing lost."""

import contextlib
import hashlib
import os
import subprocess

import pytest
from support.daemon import Daemon, originals, tone

EVENTS_ONLY = {"intake": {"rescan_seconds": 600.0}}
AFRESH = "the inbox is watched again"


@pytest.fixture
def daemon(tmp_path):
    """One that knows of new files by events alone: no scan comes to its help, but those that it finds necessary."""
    with Daemon(tmp_path / "spool", EVENTS_ONLY) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def mount():
    """Mount a fresh tmpfs over a directory; gone at the end."""
    mounted = []

    def over(path):
        ran = subprocess.run(["mount", "-t", "tmpfs", "none", path], capture_output=True, text=True, check=False)
        if ran.returncode:
            pytest.skip(f"nothing can be mounted here: {ran.stderr.strip()}")
        mounted.append(path)

    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    yield over
    for path in mounted:
        with contextlib.suppress(OSError):
            subprocess.run(["umount", "--lazy", path], capture_output=True, check=False)


def unmount(daemon, path):
    """A scan may be in there just now."""
    daemon.wait(
        lambda: not subprocess.run(["umount", path], capture_output=True, check=False).returncode, what="the unmount"
    )


def told(daemon, text):
    return sum(text in line for line in daemon.lines)


def completed(daemon, name):
    daemon.wait(lambda: daemon.status(name) == "completed", what=f"{name} completed")
    daemon.wait((daemon.done / name).exists, what=f"{name} in done/")


def test_a_filesystem_mounted_over_the_inbox_and_unmounted_again(daemon, mount):
    """What lies there cannot be renamed out of it, and says so; what lay below is taken when it shows again."""
    whole = tone(daemon.root.parent / "whole.wav").read_bytes()
    writer = (daemon.inbox / "below.wav").open("wb")
    writer.write(whole)
    daemon.wait(lambda: daemon.status("below.wav") == "pending", what="a note on what lies below")
    mount(daemon.inbox)
    daemon.wait(lambda: told(daemon, AFRESH) == 1, what="the mount noticed")
    writer.close()
    (daemon.inbox / "above.wav").write_bytes(whole + b"above")
    daemon.wait(lambda: "another filesystem" in ((daemon.sidecar("above.wav") or {}).get("reason") or ""), what="why")
    daemon.wait(lambda: daemon.sidecar("below.wav") is None, what="the note on what cannot be seen removed")
    unmount(daemon, daemon.inbox)

    completed(daemon, "below.wav")
    (daemon.inbox / "later.wav").write_bytes(whole + b"later")  # by events again
    completed(daemon, "later.wav")
    assert told(daemon, AFRESH) == 2
    assert told(daemon, "above.wav: not claimed") == 1
    assert daemon.sidecar("above.wav") is None
    assert originals(daemon.root)["done"] == sorted(
        hashlib.sha256(each).hexdigest() for each in (whole, whole + b"later")
    )


def test_a_filesystem_mounted_over_a_folder_of_the_inbox(daemon, mount):
    """Only the files in it wait, with the reason; the next whole scan finds them."""
    (daemon.inbox / "alice").mkdir()
    mount(daemon.inbox / "alice")
    tone(daemon.inbox / "alice/a.wav")
    tone(daemon.inbox / "b.wav")
    completed(daemon, "b.wav")
    daemon.configure({"intake": {"rescan_seconds": 1.0}})
    daemon.process.send_signal(1)
    daemon.wait(lambda: "another filesystem" in ((daemon.sidecar("alice/a.wav") or {}).get("reason") or ""), what="why")

    assert told(daemon, AFRESH) == 0
    (daemon.inbox / "alice/a.wav").rename(daemon.inbox / "alice/c.wav")
    daemon.wait(lambda: daemon.sidecar("alice/a.wav") is None, what="the note removed")
    unmount(daemon, daemon.inbox / "alice")
    tone(daemon.inbox / "alice/d.wav")
    completed(daemon, "alice/d.wav")
