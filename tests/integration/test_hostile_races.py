"""What is swapped between a look and its use, and what a crowd does to others: against a process that tries thousands of times."""

import collections
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
from support.canary import SECRET, Canary, holding
from support.daemon import Daemon, tone
from support.spool import FORMATS, SEEN_AT, Spool
from watchdog.observers.inotify_c import InotifyConstants

from whisperd.core.errors import ClaimLost, ClaimRefused
from whisperd.core.job import Signature
from whisperd.intake.ignore import Ignore
from whisperd.intake.scan import scan
from whisperd.spool.durable import Folder, move

ATTEMPTS = 120  # each against some swaps; there is no moment in which nothing is swapped
DEADLINE_SECONDS = 20.0

# Exchanges two names, as fast as it can, by renameat2(RENAME_EXCHANGE): there is no moment without either.
SWAPPER = """
import ctypes, os, random, sys, time
libc = ctypes.CDLL(None)
one, other = map(os.fsencode, sys.argv[1:3])
count = 0
while os.getppid() == int(sys.argv[3]):
    libc.renameat2(-100, one, -100, other, 2)
    count += 1
    time.sleep(random.random() * 0.002)  # a claim takes about as long: every step of it is met
    if count == 10:
        print("swapping", flush=True)
"""


@pytest.fixture
def canary(tmp_path):
    with Canary(tmp_path / "canary.txt") as canary:
        yield canary


@pytest.fixture
def swapping():
    """Lets a process swap two names until the end of the block."""

    @contextlib.contextmanager
    def swap(one, other):
        command = [sys.executable, "-c", SWAPPER, one, other, str(os.getpid())]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "swapping\n"
            yield
            process.kill()

    return swap


def bait(path, kind, canary):
    """Something that must not be taken, under a name."""
    if kind == "symlink":
        path.symlink_to(canary.path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif kind == "hard link":
        path.hardlink_to(canary.path)
    elif kind == "device":
        if os.geteuid() != 0:
            pytest.skip("only root makes devices")
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))


@pytest.mark.parametrize("kind", ["symlink", "fifo", "socket", "hard link"])
def test_a_file_swapped_while_it_is_claimed(kind, canary, swapping, tmp_path):
    """Each claim takes the file that was seen, or nothing, and what is not taken is back in the inbox."""
    spool = Spool(tmp_path / "spool")
    upload, aside, stray = spool.layout.inbox / "a.mp3", spool.layout.root / "aside", spool.layout.inbox / "a-2.mp3"
    bait(aside, kind, canary)
    ours = spool.upload("a.mp3", b"sound").stat().st_ino
    foreign = aside.lstat().st_ino
    outcomes = collections.Counter()
    end = time.monotonic() + DEADLINE_SECONDS
    with swapping(upload, aside):
        while outcomes.total() < ATTEMPTS and time.monotonic() < end:
            seen = Signature.of(os.lstat(upload))
            if seen.inode != ours:
                continue
            try:
                job = spool.store.claim("a.mp3", seen, FORMATS, created_at=SEEN_AT)
            except (ClaimLost, ClaimRefused) as error:
                outcomes["swapped in between" if "while" in str(error) else "swapped before"] += 1
            else:
                original = spool.layout.job_directory(job.id) / job.original
                assert (original.lstat().st_ino, original.read_bytes()) == (ours, b"sound")
                outcomes["taken"] += 1
                assert spool.store.release(job) == "a.mp3"
            assert not os.path.lexists(stray)
            assert spool.jobs() == set()

    assert outcomes["taken"] > 5, outcomes
    assert outcomes["swapped before"] + outcomes["swapped in between"] > 5, outcomes
    assert {upload.lstat().st_ino, aside.lstat().st_ino} == {ours, foreign}
    # a link to a file is the file: it may be opened to see which one it is, and not read
    assert not canary.was_touched(InotifyConstants.IN_ACCESS if kind == "hard link" else 0xFFFF_FFFF)


def test_a_folder_swapped_for_a_symlink_while_it_is_walked_and_claimed_from(canary, swapping, tmp_path):
    """What lies behind the symlink is neither seen nor taken."""
    spool = Spool(tmp_path / "spool")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    secret = canary.path.rename(elsewhere / "a.mp3")
    canary.was_touched()
    upload = spool.upload("alice/a.mp3", b"sound")
    ours, foreign = upload.stat().st_ino, secret.stat().st_ino
    aside = spool.layout.root / "aside"
    aside.symlink_to(elsewhere)
    outcomes = collections.Counter()
    end = time.monotonic() + DEADLINE_SECONDS
    with swapping(upload.parent, aside):
        while outcomes.total() < ATTEMPTS and time.monotonic() < end:
            for found in filter(None, scan(spool.layout.inbox, Ignore())):
                assert found.signature is None or found.signature.inode == ours
            seen = os.lstat(upload)  # whichever it is at this moment
            try:
                job = spool.store.claim("alice/a.mp3", Signature.of(seen), FORMATS, created_at=SEEN_AT)
            except (ClaimLost, ClaimRefused):
                outcomes["lost"] += 1
                continue
            own = spool.layout.job_directory(job.id)
            assert (own / job.original).read_bytes() == b"sound"
            outcomes["taken"] += 1
            while (own / job.original).exists():  # back into the real folder, whichever name it has at this moment
                assert time.monotonic() < end, "no try met the real folder"
                for real in (spool.layout.inbox / "alice", aside):
                    with Folder(own) as source, contextlib.suppress(OSError):
                        with Folder(spool.layout.root, real.relative_to(spool.layout.root).parts) as target:
                            move(source, job.original, target, "a.mp3")
                        break

    assert min(outcomes["lost"], outcomes["taken"]) > 5, outcomes
    assert [path.stat().st_ino for path in elsewhere.iterdir()] == [foreign]
    assert not canary.was_touched()


@pytest.mark.parametrize("kind", ["symlink", "fifo", "socket", "device", "hard link"])
def test_what_is_no_upload_stays_where_it_is(kind, canary, tmp_path):
    """It is named in the journal, and others are served."""
    canary.path.chmod(0o600)
    with Daemon(tmp_path / "spool") as daemon:
        daemon.wait_ready()
        bait(daemon.inbox / "a.mp3", kind, canary)
        before = (daemon.inbox / "a.mp3").lstat()
        daemon.wait(lambda: daemon.logged("a.mp3: not claimed"), what="the line in the journal")
        tone(daemon.inbox / "good.wav")
        daemon.wait(lambda: daemon.status("good.wav") == "completed", what="the transcript of another file")

        after = (daemon.inbox / "a.mp3").lstat()
        assert (after.st_ino, after.st_mode, after.st_nlink) == (before.st_ino, before.st_mode, before.st_nlink)
        assert not any(path.name.startswith("a.mp3") for path in (*daemon.done.iterdir(), *daemon.failed.iterdir()))
        assert [path for path in holding(daemon.root, SECRET) if path.parent != daemon.inbox] == []


def test_a_daemon_under_a_swapping_attacker(canary, swapping, tmp_path):
    """While a name changes between a recording and a link to a secret, nothing of the secret comes out."""
    with Daemon(tmp_path / "spool", {"intake": {"settle_seconds": 0.01, "settle_seconds_proven": 0.01}}) as daemon:
        daemon.wait_ready()
        upload, aside = daemon.inbox / "a.wav", daemon.root / "aside"
        tone(upload)
        aside.symlink_to(canary.path)
        end, rounds = time.monotonic() + 4.0, 0
        with swapping(upload, aside):
            while time.monotonic() < end:
                tone(daemon.inbox / f"good{rounds}.wav", 0.1)
                daemon.wait(lambda: daemon.status(f"good{rounds}.wav") == "completed", what="others being served")  # noqa: B023
                rounds += 1

        assert not canary.was_touched()
        assert holding(daemon.root, SECRET) == []
        assert daemon.stop() == 0


def test_folders_nested_without_end_stop_nobody(tmp_path):
    """In the inbox and in the outbox, both of which a group may write to; within the watchdog's time."""
    tops = [tmp_path / "spool/inbox", tmp_path / "spool/outbox", tmp_path / "spool/failed"]
    for top in tops:
        top.mkdir(parents=True)
        subprocess.run([sys.executable, "-c", NESTED, top], check=True)
    try:
        with Daemon(tmp_path / "spool") as daemon:
            daemon.wait_ready()
            tone(daemon.inbox / "good.wav")
            daemon.wait(lambda: daemon.status("good.wav") == "completed", what="the transcript")
            daemon.wait(lambda: daemon.logged("nested more than"), what="the reason in the journal")
            command = [sys.executable, "-m", "whisperd", "status", "--json", "--config", str(daemon.config)]
            assert b"nested more than" in subprocess.run(command, capture_output=True, check=True).stdout
            assert daemon.stop() == 0
    finally:
        subprocess.run(["rm", "-rf", *tops], check=True)


NESTED = """
import os, sys
os.chdir(sys.argv[1])
for _ in range(3000):
    os.mkdir("d")
    os.chdir("d")
"""


def test_one_who_fills_the_inbox_delays_another_by_a_file_or_two(tmp_path):
    """By order, not by time: however many wait in one folder, a file of another is claimed among the next ones."""
    crowd = 600
    with Daemon(tmp_path / "spool", {"script": "slow:0.3", "pool": {"queue_size": 4}}) as daemon:
        daemon.wait_ready()
        whole = tone(tmp_path / "tone.wav", 0.2).read_bytes()
        (daemon.inbox / "crowd").mkdir()
        for number in range(crowd):
            (daemon.inbox / f"crowd/{number}.wav").write_bytes(whole if number % 2 else b"no sound\n" * 50)
        daemon.wait(lambda: sum("claimed" in line for line in daemon.lines) >= 10, what="a queue that is full")
        (daemon.inbox / "single").mkdir()
        shutil.copy(tmp_path / "tone.wav", daemon.inbox / "single/.a.wav")
        os.rename(daemon.inbox / "single/.a.wav", daemon.inbox / "single/a.wav")
        before = len(daemon.lines)
        daemon.wait(lambda: daemon.status("single/a.wav") == "completed", within_seconds=60, what="the single one")

        claims = [line for line in daemon.lines[before:] if "claimed" in line]
        position = next(number for number, line in enumerate(claims) if "single/a.wav" in line)
        # what was claimed while it settled went before it; with the queue full that is little
        assert position <= 25
        assert len(list((daemon.inbox / "crowd").iterdir())) > crowd / 2


@pytest.mark.parametrize("act", ["append", "truncate", "rewrite"])
def test_a_writer_that_kept_its_descriptor(act, tmp_path):
    """What it does after the claim makes the result void: the transcript in the end is that of the file in the end."""
    waits = {"settle_seconds": 0.2, "settle_seconds_proven": 0.2}
    with Daemon(tmp_path / "spool", {"script": "slow:0.5", "intake": waits}) as daemon:
        daemon.wait_ready()
        tone(daemon.root / "a.wav", 3.0).rename(daemon.inbox / "a.wav")
        daemon.wait(lambda: (daemon.sidecar("a.wav") or {}).get("phase") == "transcribing", what="the run")
        (claimed,) = daemon.work.glob("*/original.wav")
        with claimed.open("r+b") as kept:  # as one that had been opened before the claim
            if act == "append":
                kept.seek(0, os.SEEK_END)
                kept.write(bytes(32_000))
            elif act == "truncate":
                kept.truncate(50_000)
            else:
                kept.seek(1000)
                kept.write(b"\1\2" * 10_000)
        daemon.wait(lambda: daemon.logged("a.wav: changed after it was claimed"), what="the void result")
        daemon.wait(lambda: daemon.status("a.wav") in {"completed", "failed"}, what="the second end")

        document = daemon.sidecar("a.wav")
        daemon.wait(lambda: len(list(daemon.root.glob("*/a.wav"))) == 1, what="the upload in one place")
        assert document["status"] == ("failed" if act == "truncate" else "completed"), document["error"]
        assert daemon.stop() == 0
