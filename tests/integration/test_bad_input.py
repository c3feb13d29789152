"""What people drop by mistake, or on purpose: each ends in failed/ or stays untouched, with a clear reason, and harms nobody."""

from __future__ import annotations

import os
import wave

import pytest
from support.daemon import Daemon, tone


@pytest.fixture
def daemon(tmp_path):
    with Daemon(tmp_path / "spool") as daemon:
        daemon.wait_ready()
        yield daemon


def works_on(daemon):
    """Whether the daemon still does its job for somebody else."""
    tone(daemon.inbox / "good.wav")
    daemon.wait(lambda: daemon.status("good.wav") == "completed", what="the transcript of another file")
    return True


def fails(daemon, name, code):
    """Wait for a failure with this code; returns the sidecar."""
    daemon.wait(lambda: daemon.status(name) == "failed", what=f"the failure of {name}")
    daemon.wait((daemon.failed / name).exists, what="the original in failed/")
    document = daemon.sidecar(name)

    assert document["error"]["code"] == code, document["error"]
    assert document["error"]["message"]
    assert document["attempts"] == 1
    daemon.wait(
        lambda: daemon.logged(f"{name}: failed, {document['error']['message']}"), what="the line in the journal"
    )
    return document


def stays(daemon, name, reason):
    """Wait for the reason why a file is not claimed, in sidecar and log; the file is untouched."""
    daemon.wait(lambda: daemon.status(name) == "pending", what=f"the reason why {name} waits")
    document = daemon.sidecar(name)

    assert reason in document["reason"]
    assert document["phase"] == "uploading"
    assert daemon.logged(f"{name}: not claimed, ")
    assert os.path.lexists(daemon.inbox / name)


def test_files_beside_a_recording(daemon):
    """A note and a picture stay where they are, with the reason, which goes when they go; they are in failed/ never."""
    (daemon.inbox / "talk").mkdir()
    (daemon.inbox / "talk/notes.txt").write_text("Ask her about the budget.\n")
    (daemon.inbox / "talk/scan.pdf").write_bytes(b"%PDF-1.7\n" + bytes(1000))

    for name in ("talk/notes.txt", "talk/scan.pdf"):
        stays(daemon, name, "this is no recording")
    assert works_on(daemon)
    assert list(daemon.failed.iterdir()) == []
    (daemon.inbox / "talk/scan.pdf").unlink()
    daemon.wait(lambda: daemon.sidecar("talk/scan.pdf") is None, what="the end of its status file")
    stays(daemon, "talk/notes.txt", "this is no recording")


def test_an_empty_file(daemon):
    """It waits for data for a while, then fails."""
    (daemon.inbox / "a.mp3").touch()

    fails(daemon, "a.mp3", "empty")
    assert works_on(daemon)


@pytest.mark.parametrize(
    "content", [b"Dear Sir or Madam,\n" * 100, os.urandom(20_000), b"\0" * 50_000], ids=["text", "random", "zeros"]
)
def test_something_that_is_no_recording(daemon, content):
    """Text named .mp3, noise, zeros."""
    (daemon.inbox / "a.mp3").write_bytes(content)

    daemon.wait(lambda: daemon.status("a.mp3") == "failed", what="the failure")
    assert daemon.sidecar("a.mp3")["error"]["code"] in {"not_media", "corrupt", "no_audio"}
    assert works_on(daemon)


def test_a_truncated_recording(daemon, tmp_path):
    """Its header promises more than there is: a plausible transcript of the first part would be a silent loss."""
    whole = tone(tmp_path / "whole.wav", seconds=10.0).read_bytes()
    (daemon.inbox / "a.wav").write_bytes(whole[: len(whole) // 3])

    def said():
        document = daemon.sidecar("a.wav") or {}
        assert document.get("status") != "completed"
        return "promises" in str((document.get("error") or {}).get("message")) or "promises" in str(
            document.get("reason")
        )

    daemon.wait(said, what="the reason")
    assert works_on(daemon)


def test_silence(daemon):
    """A recording of nothing is a recording: it completes."""
    with wave.open(str(daemon.inbox / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"\0\0" * 32_000)

    daemon.wait(lambda: daemon.status("a.wav") == "completed", what="the transcript")
    assert works_on(daemon)


def test_a_fifo(daemon):
    """Opening it would hang for ever."""
    os.mkfifo(daemon.inbox / "a.mp3")

    stays(daemon, "a.mp3", "FIFO")
    assert works_on(daemon)


def test_a_symlink(daemon):
    """What it points to is none of our business."""
    (daemon.inbox / "a.mp3").symlink_to("/etc/passwd")

    stays(daemon, "a.mp3", "symlink")
    assert works_on(daemon)
    assert (daemon.inbox / "a.mp3").is_symlink()


def test_a_folder_called_like_a_recording(daemon):
    """It is a folder: the reason says so, and what is in it is taken."""
    (daemon.inbox / "a.mp3").mkdir()

    stays(daemon, "a.mp3", "folder")
    tone(daemon.inbox / "a.mp3/b.wav")
    daemon.wait(lambda: daemon.status("a.mp3/b.wav") == "completed", what="the transcript of the file in it")


LONGEST = "x" * 251 + ".wav"
NAMES = {
    "255 bytes": LONGEST,
    "newline": "two\nlines.wav",
    "escape": "\x1b[31mred.wav",
    "quotes": 'it\'s "quoted" $(touch x) `id`.wav',
    "dash": "-rf.wav",
    "percent": "100%s%n.wav",
    "not UTF-8": os.fsdecode(b"gr\xfc\xdfe.wav"),
    "right to left": "abc\u202egnp.wav",
    "japanese": "録音" * 20 + ".wav",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_strange_names(daemon, name):
    """Names are bytes: all of them work, and none of them breaks a line of the journal."""
    content = tone(daemon.root.parent / "plain.wav").read_bytes()
    before = len(daemon.lines)
    (daemon.inbox / name).write_bytes(content)
    done = daemon.wait(lambda: [path for path in daemon.done.iterdir() if path.is_file()], what="the original in done/")

    assert [path.name for path in done] == [name]
    texts = list(daemon.outbox.glob("*.txt"))
    assert len(texts) == 1
    assert texts[0].read_text().startswith("scripted 1.00 s")
    assert len(list(daemon.outbox.glob("*.status.json"))) == 1
    daemon.wait(lambda: daemon.logged("completed,"), what="the line in the journal")
    assert all(line.startswith("<") and line.isprintable() for line in daemon.lines[before:])


@pytest.fixture
def humble(tmp_path):
    """A daemon that permissions mean something to, though root may run it."""
    prefix = ()
    if os.geteuid() == 0:
        prefix = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner")
    with Daemon(tmp_path / "spool", prefix=prefix) as daemon:
        daemon.wait_ready()
        yield daemon
        for path in (tmp_path / "spool/inbox").rglob("*"):
            path.chmod(0o755)


def test_an_unreadable_file_is_explained_and_taken_once_it_can_be_read(humble):
    """A daemon that may not read an upload says so, leaves it alone, and needs no restart."""
    path = tone(humble.root.parent / "plain.wav")
    path.chmod(0)
    path.rename(humble.inbox / "a.wav")

    stays(humble, "a.wav", "permission denied")
    assert works_on(humble)
    (humble.inbox / "a.wav").chmod(0o644)
    humble.wait(lambda: humble.status("a.wav") == "completed", what="the transcript")


def test_an_upload_that_may_not_be_moved_is_explained(humble):
    """Its folder is not writable for whisperd: the reason names the permission, and other folders go on."""
    tone(humble.root.parent / "locked/a.wav")
    (humble.root.parent / "locked").rename(humble.inbox / "locked")
    (humble.inbox / "locked").chmod(0o555)

    stays(humble, "locked/a.wav", "permission denied")
    assert works_on(humble)
    (humble.inbox / "locked").chmod(0o755)
    humble.wait(lambda: humble.status("locked/a.wav") == "completed", what="the transcript")


def test_a_folder_that_cannot_be_read_is_explained_and_taken_once_it_can_be_read(humble):
    """One in which files wait already, and one that comes like that; said once however often the inbox is read."""
    tone(humble.root.parent / "closed/a.wav")
    (humble.root.parent / "closed").chmod(0)
    (humble.root.parent / "closed").rename(humble.inbox / "closed")
    (humble.inbox / "late").mkdir()
    with tone(humble.inbox / "late/.a.wav").rename(humble.inbox / "late/a.wav").open("r+b"):
        humble.wait(lambda: humble.status("late/a.wav") == "pending", what="a note on a file that waits")
        (humble.inbox / "late").chmod(0)
        humble.wait(lambda: humble.status("late") == "pending", what="the reason why the folder waits")

    stays(humble, "closed", "cannot look into this folder")
    assert works_on(humble)
    (humble.inbox / "closed").chmod(0o755)
    (humble.inbox / "late").chmod(0o755)
    humble.wait(lambda: humble.status("closed/a.wav") == "completed", what="the transcript")
    humble.wait(lambda: humble.status("late/a.wav") == "completed", what="the other transcript")
    assert len([line for line in humble.lines if "closed: not claimed" in line]) == 1
