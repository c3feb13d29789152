"""What `whisperd status` says of a spool, whatever somebody has written into its outbox."""

import json

import pytest
from support.spool import Spool

from whisperd.cli import status
from whisperd.cli.status import gather
from whisperd.intake.ignore import Ignore
from whisperd.spool import status_file

ESCAPES = "\x1b]0;owned\x07\x9b2J\u202e\ud800<script>"


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def forged(**changes):
    document = dict.fromkeys(status_file.FIELDS) | {"schema": 1, "name": "a", "status": "failed", "phase": "ended"}
    return json.dumps(document | changes).encode()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(forged(error={"message": ESCAPES, "hint": ESCAPES, "code": ESCAPES}), id="escapes"),
        pytest.param(forged(id=None, source="inbox/w.mp3", reason=ESCAPES, status="pending"), id="escapes in a note"),
        pytest.param(forged(error="none"), id="an error that is no object"),
        pytest.param(forged(error={"message": 5, "hint": [1]}), id="messages that are no text"),
        pytest.param(forged(name=ESCAPES, phase=ESCAPES, status="in_progress"), id="escapes in the name"),
        pytest.param(forged(speed="fast", eta_seconds={}, progress=[1], queue_position="x"), id="texts for numbers"),
        pytest.param(forged(speed=float("nan"), eta_seconds=float("inf"), progress=10**400), id="odd numbers"),
        pytest.param(forged(name=None, status=None, phase=7), id="no texts"),
        pytest.param(b'{"schema":1,"id":' + b"[" * 100_000, id="nested without end"),
        pytest.param(b"\xff\xfe", id="no text at all"),
    ],
)
def test_a_forged_sidecar_neither_steers_a_terminal_nor_breaks_status(spool, content, capsys):
    """Of a running, a waiting and a failed file alike."""
    spool.put("outbox/r.mp3.status.json", content)
    job = spool.take("r.mp3")
    assert job.place in {"r.mp3", "r-2.mp3"}
    spool.put(f"outbox/{job.place}.status.json", content)
    spool.put("outbox/w.mp3.status.json", content)
    spool.upload("w.mp3")
    spool.put("failed/f.mp3")
    spool.put("outbox/f.mp3.status.json", content)

    report = gather(spool.layout, Ignore(), wanted_bytes=0)
    status._screen(report, None)
    shown = capsys.readouterr().out + json.dumps(report, ensure_ascii=False)

    assert "f.mp3" in shown
    assert all(char.isprintable() or char == "\n" for char in shown)
