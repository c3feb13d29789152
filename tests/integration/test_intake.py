"""Every way in which a file can arrive, at a real daemon: taken once, after the last byte, or not, and it says why."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.daemon import Daemon, originals, tone

from whisperd.cli import main

UNHURRIED = {
    "intake": {
        "settle_seconds": 2.0,
        "empty_seconds": 600.0,
        "truncated_seconds": 600.0,
        "rescan_seconds": 600.0,
    }
}
EVENTS_QUEUED = Path("/proc/sys/fs/inotify/max_queued_events")
WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def daemon(root):
    """One that knows of new files by events alone: no scan comes to its help."""
    with Daemon(root, UNHURRIED) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def sound(tmp_path):
    return tone(tmp_path / "sound.wav", seconds=3.0).read_bytes()


def digest(data):
    return hashlib.sha256(data).hexdigest()


def completed(daemon, name="a.wav", within_seconds=30.0):
    daemon.wait(lambda: daemon.status(name) == "completed", what=f"{name} completed", within_seconds=within_seconds)
    daemon.wait((daemon.done / name).exists, what=f"{name} in done/")  # the original is moved last
    return daemon.sidecar(name)


def taken_once(daemon, *contents):
    """Each content is in done/ exactly once, and nothing is anywhere else."""
    expected = sorted(map(digest, contents))
    daemon.wait(lambda: originals(daemon.root)["done"] == expected, what="all in done/, once")
    rooms = originals(daemon.root)
    return (rooms["inbox"], rooms["failed"], rooms[".work"]) == ([], [], [])


def reason(daemon, name="a.wav"):
    document = daemon.sidecar(name) or {}
    return document.get("reason") if document.get("id") is None else None


def test_a_closed_file_waits_for_no_quiet_time(root, sound):
    """The kernel says that nobody writes and the header that all is there: nothing is left to wait for."""
    patient = {"intake": {**UNHURRIED["intake"], "settle_seconds": 600.0}}
    with Daemon(root, {**UNHURRIED, **patient}) as daemon:
        daemon.wait_ready()
        for number in range(5):
            (daemon.inbox / f"{number}.wav").write_bytes(sound)
            daemon.wait(lambda number=number: not (daemon.inbox / f"{number}.wav").exists(), what="the claim")


def test_a_slow_writer(daemon, sound):
    """Taken after its last byte, and the reason is told while it is written."""
    with (daemon.inbox / "a.wav").open("wb", buffering=0) as file:
        for start in range(0, len(sound), len(sound) // 6 + 1):
            file.write(sound[start : start + len(sound) // 6 + 1])
            daemon.wait(lambda: reason(daemon) == "still open for writing", what="the reason")
        assert daemon.sidecar("a.wav")["status"] == "pending"

    assert completed(daemon)["sha256"] == digest(sound)
    assert taken_once(daemon, sound)


def test_a_writer_that_is_silent_for_longer_than_any_quiet_time(daemon, sound):
    """A whole recording by its header, and still open: whoever has it open may not be through."""
    with (daemon.inbox / "a.wav").open("wb", buffering=0) as file:
        file.write(sound)
        opened_at = time.monotonic()
        daemon.wait(
            lambda: time.monotonic() - opened_at > 5.0 and reason(daemon), what="a time longer than any quiet one"
        )
        assert reason(daemon) == "still open for writing"
        assert (daemon.inbox / "a.wav").exists()
        file.write(b"LIST\x04\0\0\0INFO")

    assert completed(daemon)["sha256"] == digest(sound + b"LIST\x04\0\0\0INFO")


def test_a_client_that_reserves_the_full_size_first(daemon, sound):
    """As Explorer and robocopy do: the size from the start, the data later, an old mtime at the end."""
    path = daemon.inbox / "a.wav"
    with path.open("wb", buffering=0) as file:
        file.truncate(len(sound))
        daemon.wait(lambda: reason(daemon) == "still open for writing", what="the reason")
        for start in range(0, len(sound), 30_000):
            os.pwrite(file.fileno(), sound[start : start + 30_000], start)
        os.utime(file.fileno(), (1e9, 1e9))

    assert completed(daemon)["sha256"] == digest(sound)
    assert (daemon.done / "a.wav").stat().st_mtime == 1e9


def test_pieces_that_come_out_of_order(daemon, tmp_path):
    """As parallel downloaders write them, each closed: size and header are right long before the last piece is there."""
    source = tone(tmp_path / "sound.wav", seconds=20.0)

    def send(piece):
        command = [
            "dd",
            f"if={source}",
            f"of={daemon.inbox}/a.wav",
            "bs=200k",
            "count=1",
            "conv=notrunc",
            "status=none",
        ]
        subprocess.run([*command, f"skip={piece}", f"seek={piece}"], check=True)

    for piece in (3, 0, 2):
        send(piece)
    daemon.wait(lambda: "nothing is written in it at 20" in (reason(daemon) or ""), what="the reason")
    send(1)

    assert completed(daemon)["sha256"] == digest(source.read_bytes())
    assert taken_once(daemon, source.read_bytes())


def test_an_upload_that_breaks_off_and_is_resumed(daemon, sound):
    """Closed, short, and complete later: what was there in between was never taken."""
    path = daemon.inbox / "a.wav"
    path.write_bytes(sound[: len(sound) // 3])
    daemon.wait(lambda: "header promises 96 kB, 32 kB here" in (reason(daemon) or ""), what="the reason")
    with path.open("ab") as file:
        file.write(sound[len(sound) // 3 :])

    assert completed(daemon)["sha256"] == digest(sound)


def test_an_upload_that_breaks_off_for_good(root, sound):
    """It fails with how much of it is there, and its bytes are kept."""
    with Daemon(root) as daemon:
        daemon.wait_ready()
        (daemon.inbox / "a.wav").write_bytes(sound[: len(sound) * 37 // 100])
        daemon.wait(lambda: daemon.status("a.wav") == "failed", what="the failure")

        daemon.wait((daemon.failed / "a.wav").exists, what="a.wav in failed/")  # the original is moved last
        assert daemon.sidecar("a.wav")["error"]["message"] == "upload looks truncated: 36 % of what its header promises"
        assert (daemon.failed / "a.wav").stat().st_size == len(sound) * 37 // 100


def test_a_rename_into_place(daemon, sound):
    """As rsync, WinSCP and careful people do it; the temporary name is never taken."""
    (daemon.inbox / ".a.wav.Xy12Zq").write_bytes(sound)
    (daemon.inbox / ".a.wav.Xy12Zq").rename(daemon.inbox / "a.wav")

    completed(daemon)
    assert taken_once(daemon, sound)


def test_a_hard_link_into_place(daemon, tmp_path, sound):
    """It is created and never closed: no event but that one comes."""
    (tmp_path / "elsewhere.wav").write_bytes(sound)
    (daemon.inbox / "a.wav").hardlink_to(tmp_path / "elsewhere.wav")

    completed(daemon)
    assert taken_once(daemon, sound)


def test_a_folder_moved_in(daemon, tmp_path, sound):
    """All that is in it, at any depth, and what is added to it later."""
    for name in ("b.wav", "deep/er/c.wav"):
        (tmp_path / "alice" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "alice" / name).write_bytes(sound + name.encode())
    (tmp_path / "alice").rename(daemon.inbox / "alice")
    completed(daemon, "alice/b.wav")
    completed(daemon, "alice/deep/er/c.wav")
    (daemon.inbox / "alice/deep/d.wav").write_bytes(sound)

    completed(daemon, "alice/deep/d.wav")


def test_a_folder_renamed_within_the_inbox_is_still_watched(daemon, sound):
    """Its files come under the new name from then on."""
    (daemon.inbox / "alice").mkdir()
    (daemon.inbox / "alice/a.wav").write_bytes(sound)
    completed(daemon, "alice/a.wav")
    (daemon.inbox / "alice").rename(daemon.inbox / "bob")
    (daemon.inbox / "bob/b.wav").write_bytes(sound)

    completed(daemon, "bob/b.wav")


def test_files_dropped_while_the_daemon_is_down(root, sound):
    """The scan at the start finds them, and a note on a file that has gone since goes too."""
    with Daemon(root, UNHURRIED) as daemon:
        daemon.wait_ready()
        (daemon.inbox / "gone.wav").write_bytes(sound[:5000])
        daemon.wait(lambda: reason(daemon, "gone.wav"), what="a note")
        daemon.stop()
        (daemon.inbox / "gone.wav").unlink()
        (daemon.inbox / "a.wav").write_bytes(sound)
        daemon.start()

        completed(daemon)
        daemon.wait(lambda: daemon.sidecar("gone.wav") is None, what="the removal of the stale note")


def test_a_file_deleted_while_it_settles(daemon, sound):
    """Its note goes with it, and nobody is troubled."""
    (daemon.inbox / "a.wav").write_bytes(sound[:5000])
    daemon.wait(lambda: reason(daemon), what="a note")
    (daemon.inbox / "a.wav").unlink()

    daemon.wait(lambda: daemon.sidecar("a.wav") is None, what="the removal of the note")
    assert daemon.errors() == []


def test_the_same_name_twice(root, sound):
    """The second is a job of its own, and waits under a note of its own."""
    with Daemon(root, {**UNHURRIED, "script": "slow:1"}) as daemon:
        daemon.wait_ready()
        (daemon.inbox / "a.wav").write_bytes(sound)
        daemon.wait(lambda: daemon.status("a.wav") == "in_progress", what="the first running")
        second = sound[:44] + sound[44:][::-1]
        with (daemon.inbox / "a.wav").open("wb", buffering=0) as file:
            file.write(second)
            daemon.wait(lambda: reason(daemon, "a-2.wav") == "still open for writing", what="a note beside the first")

        assert completed(daemon)["sha256"] == digest(sound)
        assert completed(daemon, "a-2.wav")["sha256"] == digest(second)


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_files_at_once(root, sound, count):
    """Each exactly once, while the daemon answers its watchdog."""
    few = {"engine": "scripted", "pool": {"workers": 2, "queue_size": 50}, "intake": {"rescan_seconds": 1.0}}
    with Daemon(root, few) as daemon:
        daemon.wait_ready()
        contents = [sound[:-4] + number.to_bytes(4, "little") for number in range(count)]
        for number, content in enumerate(contents):
            (daemon.inbox / f"{number}.wav").write_bytes(content)
        waiting = daemon.wait(
            lambda: reason(daemon, f"{count - 1}.wav") or daemon.status(f"{count - 1}.wav"), what="word"
        )

        states = {"completed", "in_progress", "pending", "it is taken next"}
        assert waiting in states or "the queue is full" in waiting
        daemon.wait(lambda: len(os.listdir(daemon.done)) == len(contents), within_seconds=250.0, what="all done")
        assert taken_once(daemon, *contents)
        assert daemon.notices.count("WATCHDOG=1") > 2


@pytest.mark.parametrize("how", ["renamed away", "deleted"])
def test_an_inbox_that_is_replaced(daemon, sound, how):
    """The watch is on the old directory: this is noticed, said once, and the new one is watched."""
    if how == "renamed away":
        daemon.inbox.rename(daemon.root / "inbox.old")
    else:
        daemon.inbox.rmdir()
    daemon.wait(lambda: daemon.logged("is not there") or daemon.inbox.exists(), what="its absence noticed")
    daemon.inbox.mkdir()
    (daemon.inbox / "a.wav").write_bytes(sound)
    completed(daemon)
    daemon.wait(lambda: daemon.logged("can be read again"), what="its return noticed")
    (daemon.inbox / "b.wav").write_bytes(sound + b"b")  # by events again

    completed(daemon, "b.wav")


def test_events_that_are_lost(root, sound):
    """The kernel's queue holds few: that it was full is noticed, and the scan finds the rest."""
    if not os.access(EVENTS_QUEUED, os.W_OK):
        pytest.skip("fs.inotify.max_queued_events cannot be set here")
    before = EVENTS_QUEUED.read_text()
    EVENTS_QUEUED.write_text("4")
    try:
        with Daemon(root, UNHURRIED) as daemon:
            daemon.wait_ready()
            os.kill(daemon.process.pid, 19)  # SIGSTOP: nobody reads the queue
            for number in range(40):
                (daemon.inbox / f"{number}.wav").write_bytes(sound + bytes([number]))
            os.kill(daemon.process.pid, 18)

            daemon.wait(lambda: len(os.listdir(daemon.done)) == 40, what="all done")
            assert daemon.logged("events were lost")
    finally:
        EVENTS_QUEUED.write_text(before)


def test_more_folders_than_can_be_watched(root, sound):
    """What happens in a folder without a watch is found by scans that come more often, and the log says so."""
    if not os.access(WATCHES, os.W_OK) or os.geteuid() != 0:
        pytest.skip("fs.inotify.max_user_watches cannot be set here")
    before = WATCHES.read_text()
    for number in range(20):
        (root / f"inbox/{number}").mkdir(parents=True)
    try:
        WATCHES.write_text("5")
        with Daemon(root, {"intake": {**UNHURRIED["intake"], "poll_seconds": 0.5}}) as daemon:
            daemon.wait_ready()
            daemon.wait(lambda: daemon.logged("max_user_watches"), what="the limit noticed")
            for number in range(20):
                (daemon.inbox / f"{number}/a.wav").write_bytes(sound + bytes([number]))
            daemon.wait(lambda: len(list(daemon.done.glob("*/a.wav"))) == 20, what="all done")
    finally:
        WATCHES.write_text(before)


def test_a_recording_that_is_changed_while_it_is_transcribed(root, sound):
    """The writer had it open all the time, where leases are not to be had: the result is void, the file settles again."""
    with Daemon(root, {**UNHURRIED, "script": "slow:1"}) as daemon:
        daemon.wait_ready()
        (daemon.inbox / "a.wav").write_bytes(sound)
        daemon.wait(lambda: (daemon.sidecar("a.wav") or {}).get("phase") == "transcribing", what="the run")
        (claimed,) = daemon.work.glob("*/original.wav")
        changed = sound[:44] + sound[44:][::-1]
        stamp = claimed.stat().st_mtime
        claimed.write_bytes(changed)
        os.utime(claimed, (stamp, stamp))

        assert completed(daemon)["sha256"] == digest(changed)
        assert daemon.logged("changed after it was claimed")
        assert taken_once(daemon, changed)


def test_a_touch_while_it_is_transcribed_changes_nothing(root, sound):
    """A chmod, or a backup program, is no new content."""
    with Daemon(root, {**UNHURRIED, "script": "slow:1"}) as daemon:
        daemon.wait_ready()
        (daemon.inbox / "a.wav").write_bytes(sound)
        daemon.wait(lambda: (daemon.sidecar("a.wav") or {}).get("phase") == "transcribing", what="the run")
        (claimed,) = daemon.work.glob("*/original.wav")
        claimed.chmod(0o640)

        completed(daemon)
        assert not daemon.logged("changed after it was claimed")


def test_a_result_waits_for_a_writer_and_counts_if_nothing_was_written(root, sound):
    """It is done when the writer lets go."""
    with Daemon(root, {**UNHURRIED, "script": "slow:1"}) as daemon:
        daemon.wait_ready()
        (daemon.inbox / "a.wav").write_bytes(sound)
        daemon.wait(lambda: (daemon.sidecar("a.wav") or {}).get("phase") == "transcribing", what="the run")
        (claimed,) = daemon.work.glob("*/original.wav")
        with claimed.open("r+b"):
            daemon.wait(lambda: (daemon.sidecar("a.wav") or {}).get("phase") == "publishing", what="the end of the run")
            assert claimed.exists()

        completed(daemon)


class Reloads:
    """A configuration file that changes, and a SIGHUP, every second for as long as something is waited for."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.count = 0
        self._at = time.monotonic()

    def until(self, condition):
        """For `Daemon.wait`: ask for a reload if it is time, then look."""
        if time.monotonic() - self._at >= 1.0:
            self._at = time.monotonic()
            self.count += 1
            self.daemon.configure({"intake": {"rescan_seconds": 600.0 + self.count % 2}})
            self.daemon.process.send_signal(signal.SIGHUP)
        return condition()


@pytest.mark.parametrize("length", [None, 20_000], ids=["whole", "truncated"])
def test_a_reload_every_second_keeps_no_upload_waiting(root, sound, length):
    """Each reload began the quiet time anew: nothing was ever taken, and a truncated upload never failed."""
    slow = {"settle_seconds": 3.0, "settle_seconds_proven": 3.0, "truncated_seconds": 4.0, "rescan_seconds": 600.0}
    with Daemon(root, {"intake": slow}) as daemon:
        daemon.wait_ready()
        reloads = Reloads(daemon)
        (daemon.inbox / "a.wav").write_bytes(sound[:length])
        ended = "failed" if length else "completed"
        daemon.wait(lambda: reloads.until(lambda: daemon.status("a.wav") == ended), what=ended)

        assert reloads.count >= 2
        assert (daemon.sidecar("a.wav")["error"] or {}).get("code") == ("truncated" if length else None)
        assert daemon.logged("the new configuration is in use")


def test_a_done_marker(root, sound):
    """Nothing is taken before it comes, and it does not vouch for the next upload."""
    with Daemon(root, {"intake": {**UNHURRIED["intake"], "done_marker": ".done"}}) as daemon:
        daemon.wait_ready()
        (daemon.inbox / "a.wav").write_bytes(sound)
        daemon.wait(lambda: reason(daemon) == "waiting for a.wav.done", what="the reason")
        (daemon.inbox / "a.wav.done").touch()

        completed(daemon)
        assert list(daemon.inbox.iterdir()) == []


def test_a_companion_that_goes_away(daemon, sound):
    """The download program removes its state file at the end; the recording itself does not change then."""
    (daemon.inbox / "a.wav.aria2").touch()
    (daemon.inbox / "a.wav").write_bytes(sound)
    daemon.wait(lambda: reason(daemon) == "waiting for a.wav.aria2", what="the reason")
    (daemon.inbox / "a.wav.aria2").unlink()

    completed(daemon)


def test_a_full_disk_is_the_reason(root, sound):
    """Nothing is taken, and each file says why."""
    free = shutil.disk_usage(root.parent).free
    with Daemon(root, {"intake": {**UNHURRIED["intake"], "min_free": free * 2}}) as daemon:
        daemon.wait_ready()
        (daemon.inbox / "a.wav").write_bytes(sound)
        daemon.wait(lambda: reason(daemon) == "the disk is nearly full", what="the reason")
        daemon.configure({"intake": {"min_free": 0}})
        daemon.process.send_signal(1)

        completed(daemon)


def test_status_tells_the_same_reasons(daemon, sound, capsys):
    """Whoever asks on the command line reads what the sidecar says."""
    (daemon.inbox / "a.wav").write_bytes(sound[:5000])
    daemon.wait(lambda: reason(daemon), what="a note")
    with contextlib.suppress(SystemExit):
        main(["status", "--root", str(daemon.root)])

    assert "header promises 96 kB, 5.0 kB here" in " ".join(capsys.readouterr().out.split())
