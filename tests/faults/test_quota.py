"""A quota that really is used up (EDQUOT), on btrfs, whose quotas bind root too: as a full disk, but statvfs(3) tells nothing."""

import contextlib
import os
import shutil
import subprocess

import pytest
from support.daemon import Daemon, tone
from support.invariants import check_spool

QUOTA = "16M"


def run(*command):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)


@pytest.fixture
def root(tmp_path):
    """A spool that is a subvolume with a limit, on a filesystem in a file."""
    if os.geteuid() or shutil.which("mkfs.btrfs") is None:
        pytest.skip("needs root and btrfs-progs, to make a filesystem with a quota")
    image, mount = tmp_path / "image", tmp_path / "mount"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    mount.mkdir()
    run("mkfs.btrfs", "-q", image)
    try:
        run("mount", "-o", "loop", image, mount)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"may not mount btrfs: {error.stderr.strip()}")
    try:
        run("btrfs", "quota", "enable", mount)
        run("btrfs", "subvolume", "create", mount / "spool")
        run("btrfs", "qgroup", "limit", QUOTA, mount / "spool")
        yield mount / "spool"
    finally:
        run("umount", "--lazy", mount)


def use_up(path):
    """Write until there is no more, in ever smaller steps."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def test_a_used_up_quota_costs_no_attempt(root):
    """A job runs, one is queued, one is not taken yet: all wait, the journal says why, and all are completed at last."""
    uploads = {}
    with Daemon(root, {"script": "slow:1", "pool": {"queue_size": 1}}) as daemon:
        daemon.wait_ready()
        for number in range(3):
            name = f"{number}.wav"
            uploads[name] = tone(root / name, 2.0 + number / 10).read_bytes()
            (root / name).rename(root / "inbox" / name)
        daemon.wait(lambda: daemon.logged("attempt 1 starts"), what="the first job")
        daemon.wait(lambda: len(list(daemon.work.glob("*/original.wav"))) == 2, what="one more in the queue")
        use_up(root / "somebody-elses")
        daemon.wait(lambda: daemon.logged("Disk quota exceeded"), what="the complaint")
        (root / "somebody-elses").unlink()
        daemon.wait(lambda: all((root / "done" / name).exists() for name in uploads), what="all transcripts")
        assert daemon.stop() == 0

        assert check_spool(root, uploads) == []
        assert [daemon.sidecar(name)["attempts"] for name in uploads] == [1, 1, 1]
