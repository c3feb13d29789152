"""An update in place: a new daemon takes over what a killed daemon of an earlier release left, in every state a job can be in."""

import json
import os

import pytest
from support.daemon import Daemon
from support.invariants import check_spool, digest
from support.old_spool import TICKET, restore

COMPLETED = [
    "done/c.wav", "done/d.wav", "queued/Köln 1.wav", "queued/q.wav", "running/r.wav", "claimed/a.wav", "claimed/m.wav",
    "half/h.wav", "half/n.wav", "half/o.wav",
]  # fmt: skip
FAILED = {
    "done/e.wav": "corrupt",
    "broken/f.wav": "corrupt",
    "broken/g.wav": "corrupt",
    "cancelled/x.wav": "cancelled",
    "waiting/w.wav": "truncated",
}
WITH_TICKET = {
    "done/c.wav", "done/e.wav", "queued/q.wav", "claimed/a.wav", "claimed/m.wav", "half/h.wav", "half/n.wav", "half/o.wav",
    "broken/f.wav", "broken/g.wav",
}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def told(tmp_path):
    """The status files that the notification command was given."""
    script = tmp_path / "hook"
    script.write_text(f"#!/bin/sh\ncat >$(mktemp {tmp_path}/told-XXXXXX)\n")
    script.chmod(0o755)
    return lambda: [json.loads(path.read_bytes()) for path in sorted(tmp_path.glob("told-*"))]


def take_over(root):
    """Run a daemon of today over it until all is done."""
    hook = [str(root.parent / "hook")]
    with Daemon(root, {"notices": {"on_completed": hook, "on_failed": hook}}, once=True) as daemon:
        daemon.wait_exit(within_seconds=60)
    return daemon


@pytest.mark.parametrize(
    ("release", "is_a_copy"),
    [("with-order", False), ("with-spec", False), ("with-spec", True)],
    ids=["options called order", "options called spec", "restored from a backup"],
)
def test_every_upload_of_an_old_spool_ends_once_and_as_it_should(root, told, release, is_a_copy):
    """Each is in done/ or failed/ with its ticket, a true status file, its transcripts, and one notification."""
    uploads = restore(release, root, is_a_copy=is_a_copy)
    assert uploads.keys() == {*COMPLETED, *FAILED}

    daemon = take_over(root)

    for name in COMPLETED:
        document = daemon.sidecar(name)
        assert (document["status"], document["original"], document["error"]) == ("completed", f"done/{name}", None)
        assert digest((root / "done" / name).read_bytes()) == uploads[name]
        kinds = ["txt", "srt"] if name in WITH_TICKET else ["txt", "json"]
        assert list(document["outputs"]) == kinds
        assert all((root / path).stat().st_size for path in document["outputs"].values())
    for name, code in FAILED.items():
        document = daemon.sidecar(name)
        assert (document["status"], document["original"], document["error"]["code"]) == (
            "failed",
            f"failed/{name}",
            code,
        )
        assert digest((root / "failed" / name).read_bytes()) == uploads[name]
    for name in WITH_TICKET:
        room = "failed" if name in FAILED else "done"
        ticket = root / room / f"{name}.yaml"
        assert ticket.read_text() == TICKET
        ticket.unlink()
        assert daemon.sidecar(name)["options"] == {"language": "fr", "formats": ["txt", "srt"]}
    assert daemon.sidecar("running/r.wav")["attempts"] == 2
    assert sorted(os.listdir(root / ".work")) == [".lock", ".notices", ".staging"]
    assert os.listdir(root / ".work/.notices") == []
    assert sorted(document["name"] for document in told()) == sorted(uploads)
    assert all(document == daemon.sidecar(document["name"]) for document in told())
    assert check_spool(root, uploads) == []
