"""Uploads over SSH to a real sshd: scp, sftp, rsync and shell commands of a member, and accounts that may do SFTP alone."""

import re
import shutil
import signal
import stat
import subprocess

import pytest
from support.arrivals import claims, fed, not_taken, recording, sizes_seen, taken_once
from support.shared_spool import SharedSpool, needs, run
from support.sshd import started

pytestmark = needs("sshd", "ssh", "ssh-keygen", "scp", "sftp", "rsync")

LONG_SECONDS = 60.0  # of audio: 1.9 MB
SLOW = 640  # kB/s: three seconds for a long recording


@pytest.fixture(scope="module")
def spool():
    with SharedSpool() as spool:
        yield spool


@pytest.fixture(scope="module")
def bob(sshd):
    """An account of the group that the shipped snippet is for."""
    return sshd.add_sftp_only("bob")


@pytest.fixture
def name(request):
    return re.sub(r"[^a-z]+", "-", request.node.name) + ".wav"


@pytest.fixture
def sound(tmp_path, name):
    return recording(tmp_path / name)


@pytest.fixture
def long_sound(tmp_path, name):
    """One whose header promises no size: that nobody has it open is all that tells when it is complete."""
    return recording(tmp_path / name, LONG_SECONDS, streamed=True)


@pytest.fixture
def sized_sound(tmp_path, name):
    """A long one whose header tells how long it is."""
    return recording(tmp_path / name, LONG_SECONDS)


@pytest.fixture
def target(alice, daemon):
    """The inbox as scp and rsync name it."""
    return f"{alice.name}@127.0.0.1:{daemon.inbox}"


def abandoned(daemon, name, command, missing, *, number=signal.SIGKILL):
    """Let a slow client come as far as to a part of the file, then end it; returns what stands in the inbox."""
    with started(*command) as client:
        daemon.wait(lambda: any(0 < size < missing for size in sizes(daemon, name)), what="a part of the upload")
        client.send_signal(number)
        client.wait()
    assert claims(daemon, name) == 0
    return daemon.inbox / name


def sizes(daemon, name):
    return [path.stat().st_size for path in daemon.inbox.glob(f"*{name}*")]


SCP = [pytest.param((), id="sftp"), pytest.param(("-O",), id="legacy"), pytest.param(("-p",), id="preserving")]


@pytest.mark.parametrize("options", [*SCP, pytest.param(("-O", "-p"), id="legacy-preserving")])
def test_scp(daemon, sshd, target, sound, options):
    """Both protocols, with and without the dates of the source, which the old one sets after it has closed the file."""
    name = sound.path.name
    run("scp", *options, *sshd.options, sound.path, target)

    assert taken_once(daemon, name, sound)


@pytest.mark.parametrize("options", SCP)
def test_slow_scp(daemon, sshd, target, long_sound, options):
    """Not taken before its last byte."""
    name = long_sound.path.name
    with started("scp", *options, "-l", SLOW * 8, *sshd.options, long_sound.path, target) as client:
        seen = sizes_seen(daemon, name, client, len(long_sound.data))

    assert len(seen) > 3
    assert taken_once(daemon, name, long_sound)


@pytest.mark.parametrize("options", SCP[:2])
def test_aborted_scp(daemon, sshd, target, sized_sound, options):
    """Its part is never taken as a whole; a second try, over the same name, is."""
    name = sized_sound.path.name
    command = ("scp", *options, "-l", SLOW * 8, *sshd.options, sized_sound.path, target)
    abandoned(daemon, name, command, len(sized_sound.data))
    assert not_taken(daemon, name, "header promises 1.9 MB")

    run("scp", *options, *sshd.options, sized_sound.path, target)
    assert taken_once(daemon, name, sized_sound)


def test_sftp_put(daemon, sshd, alice, sound, name):
    """As graphical clients do it."""
    sshd.sftp(alice, f"put {sound.path} {daemon.inbox}/{name}")

    assert taken_once(daemon, name, sound)


def test_sftp_reput(daemon, sshd, alice, sized_sound, name):
    """An upload that broke off is resumed at its end."""
    command = ("scp", "-l", SLOW * 8, *sshd.options, sized_sound.path, f"{alice.name}@127.0.0.1:{daemon.inbox}")
    part = abandoned(daemon, name, command, len(sized_sound.data))
    assert not_taken(daemon, name, "header promises 1.9 MB")
    inode = part.stat().st_ino
    sshd.sftp(alice, f"reput {sized_sound.path} {part}")

    assert taken_once(daemon, name, sized_sound)
    assert (daemon.done / name).stat().st_ino == inode


def test_sftp_put_and_rename(daemon, sshd, alice, sound, name):
    """As WinSCP does it."""
    sshd.sftp(alice, f"put {sound.path} {daemon.inbox}/{name}.filepart")
    assert claims(daemon, f"{name}.filepart") == 0
    sshd.sftp(alice, f"rename {daemon.inbox}/{name}.filepart {daemon.inbox}/{name}")

    assert taken_once(daemon, name, sound)


RSYNC = [(), ("--inplace",), ("--delay-updates",), ("--partial-dir=.rsync-partial",)]


@pytest.mark.parametrize("options", RSYNC, ids=["default", "inplace", "delayed", "partial-dir"])
def test_rsync(daemon, sshd, target, long_sound, options):
    """Slowly, in each of its ways to write: taken under its last name, after its last byte."""
    name = long_sound.path.name
    on_the_way = name if "--inplace" in options else f".{name}.??????"
    with started(*sshd.rsync("-t", *options, f"--bwlimit={SLOW}", long_sound.path, target + "/")) as client:
        seen = sizes_seen(daemon, name, client, len(long_sound.data), on_the_way)

    assert len(seen) > 3
    assert taken_once(daemon, name, long_sound)
    assert sizes(daemon, name) == []


INTERRUPTIONS = [
    pytest.param((("--partial",), signal.SIGTERM, "header promises 1.9 MB"), id="partial"),
    # closed to all but its owner until it is complete
    pytest.param((("--inplace",), signal.SIGKILL, "the file needs g+r"), id="inplace"),
    pytest.param(((), signal.SIGTERM, ""), id="default"),
]


@pytest.mark.parametrize("case", INTERRUPTIONS)
def test_interrupted_rsync(daemon, sshd, target, sized_sound, case):
    """What it leaves under the name of the file waits; the second run completes it."""
    options, number, reason = case
    name = sized_sound.path.name
    command = sshd.rsync("-tp", *options, sized_sound.path, target + "/")
    part = abandoned(daemon, name, (*command, f"--bwlimit={SLOW}"), len(sized_sound.data), number=number)
    if reason:
        daemon.wait(part.exists, what="the part under the name of the file")
        assert not_taken(daemon, name, reason)
    else:
        daemon.wait(lambda: sizes(daemon, name) == [], what="the removal of the part")
    run(*command)

    assert taken_once(daemon, name, sized_sound)


def test_rsync_of_a_folder(daemon, sshd, target, tmp_path):
    """With modes that let the group empty the folders, and hand the group down to those below."""
    names = ["rsynced/1.wav", "rsynced/a/2.wav", "rsynced/a/b/3.wav"]
    sounds = {name: recording(tmp_path / name) for name in names}
    run(*sshd.rsync("-rtp", "--chmod=D2770,F660", "--delay-updates", tmp_path / "rsynced", target + "/"))

    for name, sound in sounds.items():
        assert taken_once(daemon, name, sound)


def test_a_folder_that_the_group_may_not_write_to(daemon, sshd, target, alice, tmp_path):
    """`scp -r` copies the mode 0755 of the source: nothing can be taken out of it, the note says so, and chmod helps."""
    name = "closed/a.wav"
    sound = recording(tmp_path / name)
    (tmp_path / "closed").chmod(0o755)
    run("scp", "-r", *sshd.options, tmp_path / "closed", target)
    assert not_taken(daemon, name, "permission denied")
    assert "g+wx" in daemon.sidecar(name)["reason"]
    alice.run("chmod", "g+w", daemon.inbox / "closed")
    alice.run("touch", daemon.inbox / name)

    assert taken_once(daemon, name, sound)


def test_cat(daemon, sshd, alice, long_sound, name):
    """A pipe into a remote shell, with pauses: not taken while it is open."""
    command = ["ssh", *sshd.options, f"{alice.name}@127.0.0.1", f"cat > '{daemon.inbox}/{name}'"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as client:
        fed(client.stdin, long_sound.data, 4, lambda: not_taken(daemon, name, "still open for writing"))

    assert taken_once(daemon, name, long_sound)


@pytest.mark.parametrize("command", ["cp", "cp -p", "mv", "ln", "cp --reflink=auto", "install -m 664"])
def test_on_the_machine_itself(daemon, alice, name, command):
    """What a member does at a shell of the machine, from another folder."""
    sound = recording(alice.home / name)
    shutil.chown(sound.path, alice.name)  # fs.protected_hardlinks lets nobody link what is not theirs
    alice.run(*command.split(), sound.path, daemon.inbox / name)

    assert taken_once(daemon, name, sound)


def test_a_folder_moved_in(daemon, alice, spool):
    """With all that is in it, at any depth."""
    names = ["moved/1.wav", "moved/a/2.wav", "moved/a/b/3.wav"]
    alice.run("install", "-d", "-m", "2775", "-g", spool.group, "moved", "moved/a", "moved/a/b")
    sounds = {name: recording(alice.home / name) for name in names}
    alice.run("mv", "moved", daemon.inbox)

    for name, sound in sounds.items():
        assert taken_once(daemon, name, sound)


def test_sftp_alone(daemon, sshd, bob, sound, name):
    """Such an account begins in the inbox, and scp works for it as well."""
    sshd.sftp(bob, f"put {sound.path} {name}")
    assert taken_once(daemon, name, sound)
    run("scp", *sshd.options, sound.path, f"{bob.name}@127.0.0.1:again-{name}")

    assert taken_once(daemon, f"again-{name}", sound)


def test_results_can_be_read_and_deleted(daemon, sshd, bob, tmp_path):
    """By SFTP alone, in folders too, and originals as well."""
    sound = recording(tmp_path / "mine/results.wav")
    sshd.sftp(bob, "mkdir mine", f"put {sound.path} mine/results.wav")
    assert taken_once(daemon, "mine/results.wav", sound)
    sshd.sftp(bob, f"get /outbox/mine/results.txt {tmp_path}/a.txt", f"get /done/mine/results.wav {tmp_path}/a.wav")
    sshd.sftp(bob, "rm /outbox/mine/*", "rmdir /outbox/mine", "rm /done/mine/results.wav")

    assert (tmp_path / "a.txt").read_text().strip() == sound.text
    assert (tmp_path / "a.wav").read_bytes() == sound.data
    assert not (daemon.outbox / "mine").exists()


def test_what_arrives_is_closed_to_others(daemon, sshd, bob, sound, name):
    """The umask of the snippet holds: the group may read and write, nobody else may anything."""
    sshd.sftp(bob, f"put {sound.path} {name}.part")
    mode = (daemon.inbox / f"{name}.part").stat().st_mode

    assert stat.S_IMODE(mode) & 0o007 == 0
    assert stat.S_IMODE(mode) & stat.S_IRGRP


def test_a_recording_that_is_private_where_it_comes_from(daemon, sshd, bob, sound, name):
    """SFTP copies its mode 0600: the note says what is missing, and the uploader can mend it."""
    sound.path.chmod(0o600)
    sshd.sftp(bob, f"put {sound.path} {name}")
    assert not_taken(daemon, name, "the file needs g+r")
    sshd.sftp(bob, f"chmod 640 {name}")

    assert taken_once(daemon, name, sound)


@pytest.mark.parametrize(
    "command",
    [
        "ls /.work",
        "put a.wav /.work/a.wav",
        "put a.wav /a.wav",
        "mkdir /a",
        "rename /inbox /a",
        "ls /etc",
        "get /srv/a",
    ],
)
def test_what_sftp_alone_cannot_do(sshd, bob, command):
    """Enter the private room, change the top, or see more of the machine."""
    recording(bob.home / "a.wav")
    said = sshd.sftp(bob, command, check=False)

    assert any(refusal in said for refusal in ("Permission denied", "not found"))


@pytest.mark.parametrize("command", ["id", "scp -f /done", "rsync --server --sender . /done"])
def test_sftp_alone_has_no_shell(sshd, bob, command):
    """Whatever is asked for, nothing is run."""
    result = run("ssh", *sshd.options, f"{bob.name}@127.0.0.1", command, check=False)

    assert result.stdout == "This service allows sftp connections only.\n"


def test_nothing_is_left_behind(daemon):
    """After all of that the daemon has had no error to report."""
    assert daemon.errors() == []
