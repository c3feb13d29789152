"""The wall clock jumps by days, for the daemon and its workers alone: only what is shown may follow it."""

import os
from pathlib import Path

import pytest
from support import daemon as support
from support.daemon import Daemon, tone
from support.invariants import check_spool

DAYS = 3 * 86_400


def turn(clock, seconds):
    """Set it, in one step: a reader finds the old value or the new."""
    new = clock.with_suffix(".new")
    new.write_text(str(seconds))
    new.rename(clock)


@pytest.mark.parametrize("jumps", [(DAYS, -DAYS), (-DAYS, DAYS)], ids=["forward", "back"])
def test_days_more_or_less_end_no_job_early_and_none_late(tmp_path, jumps):
    """While one runs and others wait; and an upload is taken whatever its mtime, days ahead or long past."""
    root, clock = tmp_path / "spool", tmp_path / "clock"
    turn(clock, 0)
    environment = {"PYTHONPATH": str(Path(support.__file__).with_name("wrong_clock")), "WRONG_CLOCK": str(clock)}
    settings = {"script": "slow:0.7", "pool": {"deadline_seconds": 30.0, "heartbeat_seconds": 20.0}}
    uploads = {}
    with Daemon(root, settings, environment) as daemon:
        daemon.wait_ready()
        for number, mtime in enumerate((None, 1, 4_000_000_000)):
            name = f"{number}.wav"
            path = tone(root / name, 1.5, frequency=300.0 + number)
            uploads[name] = path.read_bytes()
            if mtime is not None:
                os.utime(path, (mtime, mtime))
            path.rename(root / "inbox" / name)
        for jump in jumps:
            daemon.wait(lambda: any(daemon.status(name) == "in_progress" for name in uploads), what="a running job")
            done = sum((root / "done" / name).exists() for name in uploads)
            turn(clock, jump)
            daemon.wait(
                lambda done=done: sum((root / "done" / name).exists() for name in uploads) > done,
                what=f"the end of a job after {jump} s",
            )
        daemon.wait(lambda: all((root / "done" / name).exists() for name in uploads), what="all transcripts")
        assert daemon.stop() == 0

        documents = [daemon.sidecar(name) for name in uploads]
        assert [document["attempts"] for document in documents] == [1, 1, 1]
        assert len({document["finished_at"][:10] for document in documents}) > 1, "the clock was never wrong"
        assert check_spool(root, uploads) == []
        assert daemon.errors() == []
