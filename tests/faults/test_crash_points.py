"""A real daemon killed at every named step, and whatever else a crash leaves: nothing is lost and nothing is doubled."""

import hashlib
import json
import os
import re
import signal
from pathlib import Path

import pytest
from support.daemon import Daemon, originals, tone
from support.invariants import check_spool
from support.spool import Spool

import whisperd

NAME = "b/a.wav"
OUTPUTS = {"b/a.txt", "b/a.json", "b/a.wav.status.json"}
SLOW = {"script": "slow:0.5"}
UNSETTLED = {"intake": {"settle_seconds": 20.0, "settle_seconds_proven": 20.0}}


def every_point():
    """The supervisor's failpoints as the source names them, so that none can be forgotten; and the second transcript.

    `test_killed_workers` has the workers' and those of `whisperd retry`, `test_killed_corrections` those of corrections, and
    `test_faulty_filesystem` the one that is reached where a move is a link and an unlink.
    """
    source = "".join(path.read_text() for path in Path(whisperd.__file__).parent.rglob("*.py"))
    points = set(re.findall(r'failpoint\("([^"]+)"\)', source))
    ours = {point for point in points if point.partition(".")[0] not in {"worker", "retry", "correct", "move"}}
    return [*sorted(ours), "publish.after_output:2"]


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def places(root):
    """Room -> how many uploads are there, empty rooms left out."""
    return {room: len(found) for room, found in originals(root).items() if found}


def assert_in_one_place(root, sha256):
    """What must hold at every instant."""
    assert check_spool(root, {NAME: sha256}, settled=False) == []


def outbox(root):
    found = {str(path.relative_to(root / "outbox")) for path in (root / "outbox").rglob("*") if path.is_file()}
    return found - {"index.html"}  # kept by the daemon itself, whatever becomes of jobs


def assert_nothing_unfinished(root):
    """No job, no temporary file."""
    assert sorted(os.listdir(root / ".work")) == [".lock", ".staging"]
    assert os.listdir(root / ".work/.staging") == []
    assert not list(root.rglob("*.tmp"))
    assert not list(root.rglob("*.cancel"))


def assert_completed(daemon, sha256, attempts=1):
    """The whole of a good end, under the names it would have had without a crash."""
    document = daemon.sidecar(NAME)
    assert (document["status"], document["attempts"], document["sha256"]) == ("completed", attempts, sha256)
    assert originals(daemon.root) == {"inbox": [], "done": [sha256], "failed": [], ".work": []}
    assert digest(daemon.done / NAME) == sha256
    assert outbox(daemon.root) == OUTPUTS
    assert (daemon.outbox / "b/a.txt").read_text().startswith("scripted")
    assert_nothing_unfinished(daemon.root)
    assert check_spool(daemon.root, {NAME: sha256}) == []


def assert_failed(daemon, sha256, code, attempts=1):
    """The whole of a bad end."""
    document = daemon.sidecar(NAME)
    assert (document["status"], document["attempts"], document["error"]["code"]) == ("failed", attempts, code)
    assert originals(daemon.root) == {"inbox": [], "done": [], "failed": [sha256], ".work": []}
    assert digest(daemon.failed / NAME) == sha256
    assert outbox(daemon.root) == {"b/a.wav.status.json"}
    assert_nothing_unfinished(daemon.root)
    assert check_spool(daemon.root, {NAME: sha256}) == []


def kill_at(root, point, settings=None, act=lambda daemon: None):
    """Run a daemon until it kills itself at a failpoint."""
    with Daemon(root, settings, {"WHISPERD_FAILPOINT": point}) as daemon:
        act(daemon)
        assert daemon.wait_exit() == -signal.SIGKILL


def work_off(root, settings=None):
    """Run a daemon to its end."""
    daemon = Daemon(root, settings, once=True)
    with daemon:
        daemon.exit_status = daemon.wait_exit()
    return daemon


def write_on(daemon):
    """Go on writing to a recording that is being transcribed, as an uploader who had it open all the time."""
    daemon.wait(lambda: daemon.status(NAME) == "in_progress", what="the start")
    (original,) = daemon.work.glob("*/original.wav")
    with original.open("ab") as file:
        file.write(b"\0" * 3200)


def cancel(daemon):
    """Ask that an upload be cancelled which still waits in the inbox."""
    (daemon.inbox / f"{NAME}.cancel").touch()


def speak(daemon):
    """What a worker that decodes windows does, which the scripted one does not: let a text grow in the job's directory."""
    daemon.wait(lambda: (daemon.sidecar(NAME) or {}).get("phase") == "transcribing", what="the start")
    (directory,) = daemon.work.glob("[!.]*")
    (directory / "partial.txt").write_text("scripted\n")


SCENARIOS = {  # transition: settings, what somebody does meanwhile, seconds of audio; a new transition needs a new line
    "claim": (None, lambda daemon: None, 0.3),
    "publish": (None, lambda daemon: None, 0.3),
    "fail": ({"script": "raise:input"}, lambda daemon: None, 0.3),
    "release": (SLOW, write_on, 2.0),
    "cancel": (UNSETTLED, cancel, 0.3),
    "partial": (SLOW | {"output": {"partial": True}}, speak, 5.0),
}


@pytest.mark.parametrize("point", every_point())
def test_a_daemon_killed_at_any_step_loses_and_doubles_nothing(root, point):
    """The next one brings the job to the end it would have had, under the same names, with each attempt counted once."""
    transition = point.partition(".")[0]
    settings, act, seconds = SCENARIOS[transition]
    path = tone(root / "inbox" / NAME, seconds)
    sha256 = digest(path)
    kill_at(root, point, settings, act)
    if transition == "release":
        sha256 = digest(path)  # it is back, with what was added
    assert_in_one_place(root, sha256)

    daemon = work_off(root, settings)

    if transition == "fail":
        assert_failed(daemon, sha256, "corrupt")
    elif transition == "cancel":
        assert_failed(daemon, sha256, "cancelled", attempts=0)
    else:
        assert_completed(daemon, sha256, attempts=2 if point == "partial.after_show" else 1)
        assert daemon.exit_status == 0


@pytest.mark.parametrize("point", ["claim.after_move", "claim.after_ticket"])
def test_an_upload_that_was_refused_as_it_was_taken_fails_though_the_daemon_is_killed(root, point):
    """For the same reason, whatever the next daemon would say of it: it is on record before the upload moves."""
    sha256 = digest(tone(root / "inbox" / NAME, seconds=0.3))
    kill_at(root, point, {"profiles": {"**": {"beam_size": 5, "patience": 2.0}, "b/**": {"beam_size": None}}})

    daemon = work_off(root)

    assert_failed(daemon, sha256, "bad_options", attempts=0)
    assert "contradict each other" in daemon.sidecar(NAME)["error"]["message"]


def test_an_upload_that_is_written_on_while_no_daemon_is_there_is_transcribed_as_a_whole(root):
    """It was taken, but no worker has had it: it settles again in the inbox first."""
    path = tone(root / "inbox" / NAME, seconds=0.3)
    kill_at(root, "claim.after_move")
    (original,) = (root / ".work").glob("*/original.wav")
    with original.open("ab") as file:
        file.write(b"\0" * 3200)
    sha256 = digest(original)
    daemon = work_off(root)

    assert daemon.logged("changed after it was claimed")
    assert not path.exists()
    assert_completed(daemon, sha256)


@pytest.mark.parametrize(
    ("chain", "settings"),
    [
        (["claim.after_record", "claim.after_move"], None),
        (
            [
                "publish.after_result",
                "publish.after_output",
                "publish.after_output",
                "publish.after_status_file",
                "publish.after_status_file",
                "publish.after_original",
            ],
            None,
        ),
        (
            ["fail.after_record", "fail.after_record", "fail.after_status_file", "fail.after_original"],
            {"script": "raise:input"},
        ),
    ],
    ids=["claim", "publish", "fail"],
)
def test_a_daemon_killed_again_while_it_recovers_loses_and_doubles_nothing(root, chain, settings):
    """Each goes a little further than the one before."""
    sha256 = digest(tone(root / "inbox" / NAME, seconds=0.3))
    for point in chain:
        kill_at(root, point, settings)
        assert_in_one_place(root, sha256)

    daemon = work_off(root, settings)

    if settings:
        assert_failed(daemon, sha256, "corrupt")
    else:
        assert_completed(daemon, sha256)


def test_a_collision_across_a_crash_moves_the_whole_job(root):
    """A stranger's file appears in done/ while no daemon is there: it stays, and what was published moves along."""
    sha256 = digest(tone(root / "inbox" / NAME, seconds=0.3))
    kill_at(root, "publish.after_status_file")
    (root / "done/b").mkdir()
    (root / "done" / NAME).write_bytes(b"a stranger's")

    daemon = work_off(root)

    assert (root / "done" / NAME).read_bytes() == b"a stranger's"
    assert digest(root / "done/b/a-2.wav") == sha256
    assert outbox(root) == {"b/a-2.txt", "b/a-2.json", "b/a-2.wav.status.json"}
    assert daemon.sidecar("b/a-2.wav")["status"] == "completed"


def test_a_file_that_kills_the_daemon_each_time_ends_in_failed(root):
    """The attempts are counted on disk before the work starts, so even this comes to an end."""
    sha256 = digest(tone(root / "inbox" / NAME, seconds=30.0))
    with Daemon(root, SLOW) as daemon:
        for attempt in (1, 2, 3):
            daemon.wait(
                lambda count=attempt: (
                    (daemon.sidecar(NAME) or {}).get("attempts") == count and daemon.status(NAME) == "in_progress"
                ),
                what=f"attempt {attempt}",
            )
            daemon.kill()
            assert_in_one_place(root, sha256)
            daemon.start()
        daemon.wait(lambda: daemon.status(NAME) == "failed", what="the end")
        daemon.wait((root / "failed" / NAME).exists, what="the original in failed/")
        daemon.wait(lambda: places(root) == {"failed": 1}, what="the end of the job")
        daemon.stop()

    assert_failed(daemon, sha256, "worker_died", attempts=3)


def test_workers_that_are_killed_each_time_cost_the_job_its_attempts(root):
    """By the kernel's OOM killer for one: three times, then it fails; the daemon stays and takes the next file."""
    sha256 = digest(tone(root / "inbox" / NAME, seconds=0.3))
    script = root.parent / "script"
    script.write_text("kill\n")
    with Daemon(root, {"script": f"@{script}"}) as daemon:
        daemon.wait(lambda: daemon.status(NAME) == "failed", what="the end")
        script.write_text("ok\n")
        tone(root / "inbox/next.wav", seconds=0.3)
        daemon.wait(lambda: daemon.status("next.wav") == "completed", what="the next file")
        daemon.stop()

    document = daemon.sidecar(NAME)
    assert (document["error"]["code"], document["attempts"]) == ("worker_died", 3)
    assert "SIGKILL" in document["error"]["message"]
    assert digest(root / "failed" / NAME) == sha256
    assert_nothing_unfinished(root)


def claimed(root):
    """A spool with one claimed job, as a dead daemon leaves it; returns the job's directory and its content's digest."""
    spool = Spool(root)
    sha256 = digest(tone(root / "inbox" / NAME, seconds=0.3))
    job = spool.claim(NAME)
    return root / ".work" / job.id, sha256


@pytest.mark.parametrize("content", [b"", b'{"id": "2026', bytes(300)], ids=["empty", "torn", "zeros"])
def test_an_upload_whose_record_is_damaged_is_kept(root, content):
    """Its name is lost: it goes to failed/ under one that says so, and no sidecar says that it is under way."""
    directory, sha256 = claimed(root)
    (root / "outbox/b").mkdir()
    stale = {"schema": 1, "id": directory.name, "name": NAME, "status": "in_progress", "original": None, "phase": "x"}
    (root / "outbox/b/a.wav.status.json").write_text(json.dumps(stale))
    (directory / "job.json").write_bytes(content)

    daemon = work_off(root)

    name = f"recovered-{directory.name}.wav"
    assert daemon.exit_status == 1
    assert daemon.sidecar(name)["error"]["code"] == "record_damaged"
    assert f"once {NAME}," in daemon.sidecar(name)["error"]["message"]
    assert outbox(root) == {f"{name}.status.json"}
    assert originals(root) == {"inbox": [], "done": [], "failed": [sha256], ".work": []}
    assert digest(root / "failed" / name) == sha256
    assert daemon.logged(name)
    assert_nothing_unfinished(root)


def test_a_torn_result_is_not_believed(root):
    """What was rendered may be torn as well: the recording is transcribed again."""
    directory, sha256 = claimed(root)
    (directory / "result.json").write_bytes(b'{"duration_seconds": 0.3, "sha2')
    (directory / "outputs").mkdir()
    (directory / "outputs/txt").write_bytes(b"half a tran")

    assert_completed(work_off(root), sha256)


def test_leftovers_of_a_crash_are_swept_up(root):
    """Directories of claims that never happened, half-written files; and the job beside them is done."""
    directory, sha256 = claimed(root)
    (root / ".work/20260101T000000000000-aaaaaa").mkdir()
    (root / ".work/20260101T000000000001-bbbbbb").mkdir()
    (root / ".work/20260101T000000000001-bbbbbb/job.json").write_bytes(b"{}")
    (root / ".work/.staging/.0123456789abcdef.tmp").write_bytes(b"half")
    (directory / ".0123456789abcdef.tmp").write_bytes(b"half")
    (directory / "audio.s16le").write_bytes(b"half")

    assert_completed(work_off(root), sha256)
