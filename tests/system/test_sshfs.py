"""The whole spool on a real sshfs mount, where others write on the server: no events, no leases, polling alone."""

import os
import time

import pytest
from support.arrivals import PAUSE_SECONDS, claims, fed, not_taken, recording, taken_once
from support.daemon import Daemon
from support.shared_spool import SharedSpool, needs, run
from support.sshd import Sshd

pytestmark = [
    needs("sshd", "ssh", "ssh-keygen", "sshfs", "fusermount3"),
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="no /dev/fuse"),
]

SETTINGS = {
    "intake": {
        "poll_seconds": 0.5,
        "settle_seconds": 3.0,  # longer than sshfs and the kernel cache what a file is
        "rescan_seconds": 600.0,
        "truncated_seconds": 600.0,
    }
}
WITHIN_SECONDS = 20.0


@pytest.fixture(scope="module")
def server():
    """The machine that has the files, and its sshd."""
    with SharedSpool() as spool, Sshd(spool) as sshd:
        yield spool, sshd


@pytest.fixture(scope="module")
def remote(server):
    """The spool as the server sees it; its files belong to the account that mounts it, which may link them."""
    return server[0].ground / "remote"


@pytest.fixture(scope="module")
def daemon(server, remote):
    """On the mount, with a cache of folders that lasts a second instead of 20."""
    spool, sshd = server
    mount = spool.ground / "mount"
    for folder in (remote, mount):
        folder.mkdir()
    run("sshfs", "-o", f"dcache_timeout=1,ssh_command={sshd.ssh}", f"root@127.0.0.1:{remote}", mount)
    try:
        with Daemon(mount, SETTINGS) as daemon:
            daemon.wait_ready()
            yield daemon
    finally:
        run("fusermount3", "-u", "-z", mount)


@pytest.fixture
def inbox(daemon, remote):
    return remote / "inbox"


def test_the_log_says_why_the_inbox_is_polled(daemon):
    """Events of a network filesystem tell of this machine's own changes alone."""
    assert daemon.logged("the inbox is polled: on FUSE")


def test_a_file_that_is_made_on_the_server(daemon, inbox, tmp_path):
    """Found by polling, and taken once, in a folder of its own too."""
    sound = recording(tmp_path / "made.wav")
    (inbox / "alice").mkdir()
    (inbox / "alice/made.wav").write_bytes(sound.data)

    assert taken_once(daemon, "alice/made.wav", sound, within_seconds=WITHIN_SECONDS)


def test_a_rename_on_the_server(daemon, inbox, tmp_path):
    """The temporary name is never taken."""
    sound = recording(tmp_path / "renamed.wav")
    (inbox / "renamed.wav.part").write_bytes(sound.data)
    (inbox / "renamed.wav.part").rename(inbox / "renamed.wav")

    assert taken_once(daemon, "renamed.wav", sound, within_seconds=WITHIN_SECONDS)


def test_a_slow_writer_on_the_server(daemon, inbox, tmp_path):
    """The kernel here cannot know of it, and its header promises no size: only change itself tells."""
    sound = recording(tmp_path / "slow.wav", 20.0, streamed=True)
    with (inbox / "slow.wav").open("wb") as file:
        fed(file, sound.data, 12, (inbox / "slow.wav").exists)
        assert not_taken(daemon, "slow.wav", "changed")

    assert taken_once(daemon, "slow.wav", sound, within_seconds=WITHIN_SECONDS)


def test_a_ticket_that_is_written_slowly_on_the_server(daemon, inbox, tmp_path):
    """Nobody here can see its writer, and its stamps are those of another clock: it is followed when it has settled."""
    sound = recording(tmp_path / "asked.wav")
    ticket = inbox / "asked.wav.yaml"
    ticket.write_text("")
    (inbox / "asked.wav").write_bytes(sound.data)
    for piece in "language: fr\n":
        with ticket.open("a") as file:
            file.write(piece)
        os.utime(ticket, (0, 0))
        time.sleep(PAUSE_SECONDS)
        assert claims(daemon, "asked.wav") == 0

    assert taken_once(daemon, "asked.wav", sound, within_seconds=WITHIN_SECONDS)
    assert daemon.sidecar("asked.wav")["options"] == {"language": "fr"}


def test_a_broken_upload_on_the_server(daemon, inbox, tmp_path):
    """Its header promises more than is there; what completes it later is taken along."""
    sound = recording(tmp_path / "broken.wav", 20.0)
    (inbox / "broken.wav").write_bytes(sound.data[:100_000])
    assert not_taken(daemon, "broken.wav", "header promises 640 kB, 100 kB here")
    with (inbox / "broken.wav").open("ab") as file:
        file.write(sound.data[100_000:])

    assert taken_once(daemon, "broken.wav", sound, within_seconds=WITHIN_SECONDS)


def test_nothing_is_left_behind(daemon):
    """After all of that the daemon has had no error to report."""
    assert daemon.errors() == []
