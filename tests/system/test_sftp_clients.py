"""SFTP clients that are not done with a file when they have closed it: they verify it, set its dates or rename it."""

import os
import re
import time

import pytest
from support.arrivals import claims, recording, taken_once
from support.shared_spool import SharedSpool, needs, run

pytestmark = needs("sshd", "ssh", "ssh-keygen", "sftp")

SETTINGS = {"intake": {"settle_seconds": 4.0, "rescan_seconds": 600.0, "truncated_seconds": 600.0}}
PAUSE_SECONDS = 1.0  # between the last byte and what the client does next; the short quiet time is a quarter of it


@pytest.fixture(scope="module")
def spool():
    with SharedSpool(SETTINGS) as spool:
        yield spool


@pytest.fixture
def sound(tmp_path, request):
    return recording(tmp_path / (re.sub(r"[^a-z]+", "-", request.node.name) + ".wav"))


@pytest.fixture
def rclone(sshd, alice, tmp_path):
    """Runs rclone with a remote `x:`, whose digests come late, as over a slow line."""
    settings = {
        "TYPE": "sftp", "HOST": "127.0.0.1", "USER": alice.name, "PORT": str(sshd.port), "KEY_FILE": sshd.identity,
        "SHELL_TYPE": "unix", "MD5SUM_COMMAND": f"sleep {PAUSE_SECONDS}; md5sum", "SHA1SUM_COMMAND": "none",
    }  # fmt: skip
    environment = {f"RCLONE_CONFIG_X_{key}": str(value) for key, value in settings.items()}
    environment |= {"PATH": os.environ["PATH"], "RCLONE_CONFIG": str(tmp_path / "rclone.conf")}
    return lambda *words: run("rclone", *words, "--retries=3", "--low-level-retries=1", env=environment).stdout


@needs("rclone")
@pytest.mark.parametrize("command", ["copy", "move"])
def test_rclone(daemon, rclone, sound, command):
    """It asks for the digest of what it has closed; were the file gone by then, it would send it again, as another job."""
    name = sound.path.name
    said = rclone(command, str(sound.path), f"x:{daemon.inbox}")

    assert "corrupted" not in said
    assert taken_once(daemon, name, sound)
    assert not list(daemon.done.glob(name.replace(".wav", "-2.wav")))


@needs("lftp")
@pytest.mark.parametrize("command", ["put", "mirror"])
def test_lftp(daemon, sshd, alice, sound, command):
    """A mirror sets dates and modes by name, in the end."""
    name = sound.path.name
    action = f"put {sound.path}" if command == "put" else f"mirror -R -I {name} {sound.path.parent} ."
    script = f'set sftp:connect-program "{sshd.ssh} -a -x"; set net:max-retries 1; cd {daemon.inbox} && {action}'
    said = run("lftp", "-c", f"open sftp://{alice.name}:@127.0.0.1:{sshd.port} && {script}").stdout

    assert said == ""
    assert taken_once(daemon, name, sound)


AFTERWARDS = {
    "FileZilla": ["put {source} {target}", "!sleep {pause}", "chmod 660 {target}"],
    "WinSCP": ["put {source} {target}.filepart", "rename {target}.filepart {target}", "!sleep {pause}", "chmod 660 {target}"],
    "paramiko": ["put {source} {target}", "!sleep {pause}", "ls -l {target}"],
    "own name": ["put {source} {target}.new.wav", "!sleep {pause}", "rename {target}.new.wav {target}"],
}  # fmt: skip


@pytest.mark.parametrize("client", AFTERWARDS)
def test_what_clients_do_after_the_last_byte(daemon, sshd, alice, sound, client):
    """With the steps of each, slowly: none of them fails for want of the file, which is taken once, under its last name."""
    name = sound.path.name
    words = {"source": sound.path, "target": daemon.inbox / name, "pause": PAUSE_SECONDS}
    sshd.sftp(alice, *(line.format(**words) for line in AFTERWARDS[client]))

    assert taken_once(daemon, name, sound)
    assert claims(daemon, f"{name}.new.wav") == 0


def test_an_upload_whose_session_has_ended_does_not_wait(daemon, sshd, alice, sound):
    """Nobody can come back to it."""
    name = sound.path.name
    sshd.sftp(alice, f"put {sound.path} {daemon.inbox}/{name}")
    closed_at = time.monotonic()
    daemon.wait(lambda: claims(daemon, name), what="the claim")

    assert time.monotonic() - closed_at < SETTINGS["intake"]["settle_seconds"]
