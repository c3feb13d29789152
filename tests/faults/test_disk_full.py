"""A disk that really is full: nothing is lost, nobody is blamed, and everything goes on once there is room."""

import contextlib
import errno
import os
import signal
import subprocess

import pytest
from support.daemon import Daemon, originals, tone

SIZE = 4 << 20


def unavailable():
    """Why no small filesystem can be mounted here; empty when it can."""
    if os.geteuid():
        return "needs root, to mount a small filesystem"
    attempt = "mount -t tmpfs -o size=1m whisperd-test /mnt"
    result = subprocess.run(["unshare", "--mount", "sh", "-c", attempt], capture_output=True, text=True, check=False)
    return f"may not mount a filesystem: {result.stderr.strip()}" if result.returncode else ""


reason = unavailable()
pytestmark = pytest.mark.skipif(bool(reason), reason=reason)


@contextlib.contextmanager
def small_disk(path):
    """A filesystem of 4 MB, mounted at a new directory."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "whisperd-test", path], check=True)
    try:
        yield path
    finally:  # lazily: a worker of a killed daemon needs a moment to end
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def root(tmp_path):
    """A spool that is a filesystem of its own."""
    with small_disk(tmp_path / "spool") as root:
        yield root


def fill(root, leave=0):
    """Take all room but `leave` bytes; removing the file gives it back."""
    path = root / "somebody-elses"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while os.statvfs(root).f_bavail * os.statvfs(root).f_frsize > leave:
            file.write(bytes(4096))
    return path


def assert_full(root):
    """The test would show nothing otherwise."""
    with pytest.raises(OSError) as caught:
        (root / "probe").write_bytes(bytes(4096))
    assert caught.value.errno == errno.ENOSPC
    (root / "probe").unlink()


def places(root):
    """Room -> how many uploads are there, empty rooms left out."""
    return {room: len(found) for room, found in originals(root).items() if found}


def said(daemon, text):
    """The lines of the journal with this text."""
    return [line for line in daemon.lines if text in line]


def assert_completed(daemon, names):
    """All of them, under their own names, and nothing else."""
    assert [daemon.status(name) for name in names] == ["completed"] * len(names)
    assert places(daemon.root) == {"done": len(names)}
    stems = {name.partition(".")[0] for name in names}
    assert {path.name for path in daemon.outbox.iterdir()} == {
        "index.html",
        *(f"{stem}.{kind}" for stem in stems for kind in ("txt", "json")),
        *(f"{name}.status.json" for name in names),
    }


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A daemon that was started on a full disk, could not claim an upload twice, and then got room; ended."""
    with small_disk(tmp_path_factory.mktemp("full") / "spool") as root:
        tone(root / "inbox/a.wav", seconds=0.3)
        with Daemon(root, once=True) as daemon:
            assert daemon.wait_exit() == 0
        tone(root / "inbox/b.wav", seconds=0.4)
        room = fill(root)
        assert_full(root)
        with Daemon(root) as daemon:
            daemon.wait(lambda: said(daemon, "claiming is paused"), what="the complaint")
            tried_at = (root / ".work").stat().st_mtime_ns
            daemon.wait(lambda: (root / ".work").stat().st_mtime_ns != tried_at, what="another try to claim")
            assert places(root) == {"done": 1, "inbox": 1}
            room.unlink()
            daemon.wait(lambda: places(root) == {"done": 2}, what="the transcript")
            daemon.stop()
            yield daemon


def test_no_room_to_claim(told):
    """The daemon starts all the same, says that it takes nothing, leaves the upload where it is, and resumes."""
    assert "No space left" in said(told, "claiming is paused")[0]
    assert said(told, "claiming continues")
    assert_completed(told, ["a.wav", "b.wav"])


def test_no_room_to_claim_is_said_once(told):
    """Not at every try: a disk may be full for a weekend."""
    assert len(said(told, "claiming is paused")) == 1
    assert len(said(told, "claiming continues")) == 1


def test_no_room_to_decode(root):
    """The recording expands to twice its size: the job waits, at no cost to it, and what was decoded is removed."""
    tone(root / "inbox/a.wav", seconds=60.0, rate=8_000)
    room = fill(root, leave=1 << 20)
    with Daemon(root) as daemon:
        daemon.wait(lambda: said(daemon, "no attempt is counted"), what="the interruption")
        assert places(root) == {".work": 1}
        assert "No space left" in said(daemon, "no attempt is counted")[0]
        room.unlink()
        daemon.wait(lambda: daemon.status("a.wav") == "completed", what="the transcript")
        daemon.stop()

    assert daemon.sidecar("a.wav")["attempts"] == 1
    assert_completed(daemon, ["a.wav"])


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A daemon whose disk was full while one job ran and one was queued, so that not even attempts could be recorded."""
    with (
        small_disk(tmp_path_factory.mktemp("full") / "spool") as root,
        Daemon(root, {"script": "slow:0.5"}) as daemon,
    ):
        daemon.wait_ready()
        tone(root / "inbox/a.wav", seconds=3.0)
        tone(root / "inbox/b.wav", seconds=3.1)
        daemon.wait(lambda: daemon.status("a.wav") == "in_progress", what="the first job")
        daemon.wait(lambda: daemon.status("b.wav") == "pending", what="the second in the queue")
        daemon.wait(lambda: list(daemon.work.glob("*/audio.s16le")), what="the samples")
        room = fill(root)
        daemon.wait(lambda: said(daemon, "No space left"), what="the complaint")
        assert places(root) == {".work": 2}
        room.unlink()
        daemon.wait(lambda: places(root) == {"done": 2}, what="both transcripts")
        daemon.stop()
        yield daemon


def test_no_room_for_anything_while_jobs_run(interrupted):
    """Both jobs end as if nothing had happened."""
    assert_completed(interrupted, ["a.wav", "b.wav"])


def test_no_room_for_anything_costs_no_attempt(interrupted):
    """Otherwise a weekend with a full disk would fail every job under way."""
    assert [interrupted.sidecar(name)["attempts"] for name in ("a.wav", "b.wav")] == [1, 1]


def test_no_room_to_publish(root):
    """The result is there already: it is published as soon as it can be, and the work is not done twice."""
    with Daemon(root, environment={"WHISPERD_FAILPOINT": "publish.after_result"}) as daemon:
        tone(root / "inbox/a.wav", seconds=0.3)
        assert daemon.wait_exit() == -signal.SIGKILL
        daemon.environment = {}
        room = fill(root)
        assert_full(root)

        daemon.start()
        daemon.wait(lambda: said(daemon, "its end cannot be written"), what="the complaint")
        assert places(root) == {".work": 1}
        room.unlink()
        daemon.wait(lambda: places(root) == {"done": 1}, what="the end")
        daemon.stop()

    assert len(said(daemon, "attempt 1 starts")) == 1
    assert_completed(daemon, ["a.wav"])
