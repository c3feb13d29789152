"""An engine that fails for good, as after a CUDA error: its worker is replaced, and only a job that is guilty alone pays."""

import os

import pytest
from support.daemon import Daemon, originals, tone
from support.invariants import check_spool

MODES = pytest.mark.parametrize("mode", ["", "windows,"], ids=["whole recordings", "windows of several jobs"])


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


def settings(script, **pool):
    return {"script": script, "vad": {"enabled": False}, "pool": {"retry_seconds": 0.1, "max_attempts": 1, **pool}}


def uploads(root, count, seconds):
    """Recordings of this length, all different."""
    return {
        f"{number}.wav": tone(root / f"inbox/{number}.wav", seconds, frequency=200.0 + 10 * number).read_bytes()
        for number in range(count)
    }


@MODES
@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_that_sticks_costs_nobody_an_attempt(root, mode, workers):
    """After 21 steps every call fails: workers are replaced as they break, and all uploads end in done/."""
    sent = uploads(root, 20, seconds=65.0 if mode else 4.0)
    with Daemon(root, settings(f"{mode}sticky:21", workers=workers), once=True) as daemon:
        assert daemon.wait_exit(120.0) == 0

        assert daemon.logged("is replaced, because its engine failed: broken for good, says the script (")
        assert [daemon.sidecar(name)["attempts"] for name in sent] == [1] * len(sent)
        assert check_spool(root, sent) == []
        assert len(originals(root)["done"]) == len(sent)


@MODES
def test_a_poisonous_recording_pays_alone(root, mode):
    """Those beside it, before it and after it end in done/; its status file says what failed and what to do."""
    sent = uploads(root, 10, seconds=4.0)
    sent["7.wav"] = tone(root / "inbox/7.wav", 7.0).read_bytes()
    with Daemon(root, settings(f"{mode}poison:7", max_attempts=2), once=True) as daemon:
        assert daemon.wait_exit(120.0) == 1

        assert os.listdir(root / "failed") == ["7.wav"]
        assert [daemon.sidecar(name)["attempts"] for name in sent if name != "7.wav"] == [1] * 9
        document = daemon.sidecar("7.wav")
        assert (document["attempts"], document["error"]["code"]) == (2, "engine")
        assert "if this recording alone fails, give it another model" in document["error"]["hint"]
        assert check_spool(root, sent) == []
