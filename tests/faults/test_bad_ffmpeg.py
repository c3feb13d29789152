"""An ffmpeg that hangs, floods, or dies half-way, under a whole daemon: the recording survives it, and so do the others."""

import shutil

import pytest
from support.daemon import Daemon, tone
from support.invariants import check_spool

REAL = shutil.which("ffmpeg")
pytestmark = pytest.mark.skipif(REAL is None, reason="no ffmpeg")

SOME = "head -c 64000 /dev/zero"
MODES = {  # how it misbehaves, and the error code that its recording ends with
    "hangs": (f"{SOME}; exec sleep 600", "timeout"),
    "floods with samples": ("exec cat /dev/zero", "too_long"),
    "floods with words": ("exec cat /dev/zero >&2", "timeout"),  # it reads, which is life, until the deadline
    "dies": (f"{SOME}; kill -9 $$", "ffmpeg_died"),
    "breaks": (f"{SOME}; echo 'ffmpeg: error while loading shared libraries' >&2; exit 127", "ffmpeg_died"),
}


def test_a_bad_ffmpeg_loses_nothing(tmp_path):
    """Each recording fails for the reason that it had, none of them ends the worker, and with a good one all are done."""
    root, bad = tmp_path / "spool", tmp_path / "bad"
    ffmpeg = tmp_path / "ffmpeg"
    ffmpeg.write_text(f'#!/bin/sh\ncase "$*" in *-protocols*) exec {REAL} "$@";; esac\n. {bad}\n')
    ffmpeg.chmod(0o755)
    # Long enough for the good ffmpeg on a machine that is busy with something else.
    media = {"ffmpeg": str(ffmpeg), "stall_seconds": 4.0, "max_duration_seconds": 60.0}
    pool = {"max_attempts": 1, "deadline_seconds": 12.0, "deadline_factor": 0.1}
    uploads = {}
    with Daemon(root, {"media": media, "pool": pool}) as daemon:
        daemon.wait_ready()
        workers = daemon.workers()
        ends = {}
        for number, (mode, (script, _)) in enumerate(MODES.items()):
            bad.write_text(script)
            name = f"{number}.wav"
            uploads[name] = tone(root / "inbox" / name, 0.3, frequency=200.0 + number).read_bytes()
            daemon.wait((root / "failed" / name).exists, what=f"the end of a recording whose ffmpeg {mode}")
            ends[mode] = daemon.sidecar(name)["error"]["code"]
        daemon.wait(
            lambda: not list((root / ".work").glob("[!.]*")), what="the last record, which goes after the original"
        )
        assert check_spool(root, uploads) == []
        bad.write_text(f'exec {REAL} "$@"')
        for name in uploads:
            (root / "failed" / name).rename(root / "inbox" / name)
        daemon.wait(lambda: all((root / "done" / name).exists() for name in uploads), what="all transcripts")

        assert ends == {mode: code for mode, (_, code) in MODES.items()}
        assert daemon.workers() == workers
        assert daemon.stop() == 0
        assert check_spool(root, uploads) == []
