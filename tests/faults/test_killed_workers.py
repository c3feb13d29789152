"""Workers and `whisperd retry` killed by SIGKILL at every named step, workers that leak, and resume logs cut off anywhere."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import Daemon, tone
from support.invariants import check_spool, digest

import whisperd
from whisperd.worker.resume_log import ResumeLog

NAME = "b/a.wav"
POINTS = {
    point
    for path in Path(whisperd.__file__).parent.rglob("*.py")
    for point in re.findall(r'failpoint\("((?:worker|retry)\.[^"]+)"\)', path.read_text())
}


def named(start):
    """The failpoints whose name begins so, as the source has them."""
    return sorted(point for point in POINTS if point.startswith(start))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


@pytest.mark.parametrize(
    "point", [*(set(named("worker.")) - set(named("worker.after_resume_log"))), "worker.after_output:2"]
)
def test_a_worker_killed_at_any_step_costs_one_attempt(root, point):
    """And then, with the daemon killed too while the job waits for its second one, the next brings it to a good end."""
    uploads = {NAME: tone(root / "inbox" / NAME, 0.3).read_bytes()}
    with Daemon(root, {"pool": {"retry_seconds": 600.0}}, {"WHISPERD_FAILPOINT": point}) as daemon:
        daemon.wait(lambda: daemon.logged("was killed by SIGKILL"), what="the death of the worker")
        daemon.wait(lambda: "tried again" in ((daemon.sidecar(NAME) or {}).get("reason") or ""), what="its noting")
        daemon.kill()
        assert check_spool(root, uploads, settled=False) == []
        daemon.environment = {}
        daemon.once = True
        daemon.start()

        assert daemon.wait_exit() == 0
        assert check_spool(root, uploads) == []
        document = daemon.sidecar(NAME)
        assert (document["status"], document["attempts"]) == ("completed", 2)


@pytest.mark.parametrize("point", named("worker.after_resume_log"))
@pytest.mark.parametrize("hit", [1, 2, 3])
def test_a_worker_killed_while_it_writes_its_resume_log_keeps_what_was_there(tmp_path, point, hit):
    """The head and two windows: what was written before is read again, and the log continues after it."""
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from unit.worker.test_resume_log import MADE_FROM, entries
from whisperd.worker.resume_log import ResumeLog
log = ResumeLog(Path({str(tmp_path)!r}), MADE_FROM)
for entry in entries(2):
    log.add([entry])
"""
    environment = {"WHISPERD_FAILPOINT": f"{point}:{hit}"}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == -signal.SIGKILL
    made_from = {"sha256": "ab", "options": {"language": None}, "windows": [(0, 10)]}

    with ResumeLog(tmp_path, made_from) as log:
        assert len(log) == hit - 1
        assert log.find((0, 10, None, "text")) is not None or hit == 1


@pytest.mark.parametrize("point", named("retry."))
def test_a_retry_killed_at_any_step_leaves_the_file_in_one_place(root, point):
    """Where it then is, it can be retried, or is."""
    uploads = {NAME: tone(root / "inbox" / NAME, 0.3).read_bytes()}
    with Daemon(root, {"script": "raise:input"}, once=True) as daemon:
        assert daemon.wait_exit() == 1
        command = [sys.executable, "-m", "whisperd", "retry", "--config", str(daemon.config), NAME]
        killed = subprocess.run(command, env={"WHISPERD_FAILPOINT": point}, check=False)
        assert killed.returncode == -signal.SIGKILL
        assert check_spool(root, uploads, settled=False) in (
            [],
            [f"outbox/{NAME}.status.json: failed, but failed/{NAME} is not there"],
        )
        subprocess.run(command, check=False, capture_output=True)
        daemon.configure({"script": "ok"})
        daemon.start()

        assert daemon.wait_exit() == 0
        assert check_spool(root, uploads) == []
        assert daemon.status(NAME) == "completed"


def test_a_worker_that_leaks_is_replaced_between_jobs(root):
    """Before the kernel ends it in the middle of one: no job is interrupted, and every one is done by one attempt."""
    uploads = {f"{n}.wav": tone(root / f"inbox/{n}.wav", 0.3, frequency=200.0 + n).read_bytes() for n in range(6)}
    settings = {"script": "leak:100", "pool": {"max_memory": "250M"}}
    with Daemon(root, settings, once=True) as daemon:
        assert daemon.wait_exit() == 0

        worn = [line for line in daemon.lines if "more than pool.max_memory, 250 MB: it is replaced" in line]
        assert len(worn) >= 2
        assert [daemon.sidecar(name)["attempts"] for name in uploads] == [1] * 6
        assert check_spool(root, uploads) == []
        assert not daemon.logged("SIGKILL")


@pytest.mark.parametrize("damage", [b"", b'{"schema": 1, "id": "x", "sta', None], ids=["empty", "torn", "a directory"])
def test_a_sidecar_that_is_none_any_more_is_a_strangers(root, damage):
    """A disk that lied may leave anything in its place: that stays, and the job ends under the next free name."""
    uploads = {NAME: tone(root / "inbox" / NAME, 0.3).read_bytes()}
    path = root / "outbox" / f"{NAME}.status.json"
    with Daemon(root, environment={"WHISPERD_FAILPOINT": "publish.after_result"}) as daemon:
        assert daemon.wait_exit() == -signal.SIGKILL
        path.unlink()
        path.mkdir() if damage is None else path.write_bytes(damage)
        daemon.environment, daemon.once = {}, True
        daemon.start()

        assert daemon.wait_exit() == 0
        assert daemon.status("b/a-2.wav") == "completed"
        assert digest((root / "done/b/a-2.wav").read_bytes()) == digest(uploads[NAME])
        assert path.is_dir() if damage is None else path.read_bytes() == damage
        path.rmdir() if damage is None else path.unlink()
        assert check_spool(root, uploads) == []
