"""The real systemd-tmpfiles with systemd/retention.conf, on a spool with old files, new files and jobs under way."""

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from support.daemon import Daemon, originals, tone

SYSTEMD = Path(__file__).parents[2] / "systemd"
AGE_SECONDS = 2


@pytest.mark.skipif(not shutil.which("systemd-tmpfiles"), reason="systemd-tmpfiles is not installed")
def test_age_takes_what_is_old_and_nothing_of_a_job_under_way(tmp_path):
    """Every line of the snippet, its ages made short; the directories of whisperd.tmpfiles stay, as do inbox and .work."""
    root, rules = tmp_path / "spool", tmp_path / "retention.conf"
    text = (SYSTEMD / "retention.conf").read_text().replace("#e ", "e ").replace("/var/spool/whisperd", str(root))
    rules.write_text(re.sub(r"\d+d$", f"{AGE_SECONDS}s", text, flags=re.MULTILINE))
    with Daemon(root, {"script": "slow:60"}) as daemon:
        daemon.wait_ready()
        for room in ("done", "failed", "outbox"):
            (root / room / "old").mkdir()
            (root / room / "old/file").touch()
        old_at = (root / "done/old/file").stat().st_mtime + AGE_SECONDS
        tone(root / "inbox/runs.wav", seconds=10.0)
        (root / "inbox/upload.part").touch()
        daemon.wait(lambda: daemon.status("runs.wav") == "in_progress", what="the job")
        before = originals(root)

        def cleaned():
            (root / "done/new").touch()
            subprocess.run(["systemd-tmpfiles", "--clean", rules], check=True)
            return not list(root.glob("*/old/file"))

        daemon.wait(cleaned, within_seconds=15.0, what="the end of what is old")
        early = time.time() < old_at
        after = originals(root)
        daemon.kill()

    assert not early
    assert len(after[".work"]) == len(before[".work"]) == 1
    assert (root / "inbox/upload.part").exists()
    assert (root / "done/new").exists()
    assert all((root / room).is_dir() for room in ("inbox", "outbox", "done", "failed", ".work"))


def test_only_rooms_of_ended_jobs_are_named():
    """No line for the inbox or .work, and no age that a waiting job's status file, rewritten daily, could reach."""
    lines = re.findall(r"^#?e (\S+) +- - - (\d+)d$", (SYSTEMD / "retention.conf").read_text(), re.MULTILINE)

    assert {Path(path).name for path, _ in lines} == {"done", "failed", "outbox"}
    assert all(int(days) >= 2 for _, days in lines)
