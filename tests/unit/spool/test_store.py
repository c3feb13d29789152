"""The four transitions on real files: claim, release, finish, fail, and what users do in between."""

import errno
import os
import stat

import pytest
from support.spool import FAILURE, FORMATS, SEEN_AT, Spool, at, breaking, text

from whisperd.core.errors import ClaimLost
from whisperd.core.job import Phase, Progress
from whisperd.spool import job_directory, names, publish, status_file
from whisperd.spool.durable import Folder

OTHER_GROUP = 54321
HARD_NAMES = {
    "plain": "a.mp3",
    "sub_folders": "alice/2026/a.mp3",
    "not_utf8": "ali\udcff/\udcfea.mp3",
    "newline": "a\nb.mp3",
    "terminal_escape": "\x1b[2J.mp3",
    "leading_dash": "-rf.mp3",
    "255_bytes": "a" * 251 + ".mp3",
    "255_bytes_not_utf8": "\udcff" * 255,
    "255_bytes_of_characters": "🎙" * 62 + "abc.mp3",
    "no_extension": "recording",
    "odd_extension": "a.mp3 (1)",
}
hard_names = pytest.mark.parametrize("name", HARD_NAMES.values(), ids=HARD_NAMES.keys())
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to a group it is not in")


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def output(place, kind):
    folders, file = names.split(place)
    return names.join(folders, names.output(file, kind))


def everything(spool):
    """All files of users, in all rooms."""
    return {room: spool.files(room) for room in ("inbox", "outbox", "done", "failed")}


# --- claim ---


@hard_names
def test_a_claim_takes_the_upload_out_of_the_inbox_as_it_is(spool, name):
    """One rename: same inode, same times, whatever its name is."""
    path = spool.upload(name, b"sound")
    os.utime(path, ns=(1, 1_000_000_001))
    before = path.stat()

    job = spool.claim(name)

    after = (spool.layout.job_directory(job.id) / job.original).stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)
    assert spool.files("inbox") == {}
    assert (job.name, job.place, job.attempts, job.formats, job.created_at) == (name, name, 0, FORMATS, SEEN_AT)


def test_a_claim_is_on_record_before_the_upload_is_moved(spool, monkeypatch):
    """Otherwise a crash in between would leave a recording without a name."""
    found = []

    def look():
        with Folder(spool.layout.job_directory(*spool.jobs())) as own:
            found.append(job_directory.load_job(own))

    at(monkeypatch, claim__after_record=look)
    job = spool.take("a.mp3")

    assert found == [job]


def test_the_directory_of_a_job_is_private(spool):
    """Its recording may be."""
    job = spool.take("a.mp3")

    assert stat.S_IMODE(spool.layout.job_directory(job.id).stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("name", "original"),
    [("a.MP3", "original.mp3"), ("a.tar.gz", "original.gz"), ("a", "original"), ("a.x y", "original")],
)
def test_the_original_keeps_its_extension_where_it_is_harmless(spool, name, original):
    """It tells ffmpeg how to read some formats."""
    assert spool.take(name).original == original


def test_what_changed_since_it_settled_is_not_taken(spool):
    """It settles again."""
    path = spool.upload("a.mp3", b"one")
    seen = spool.seen("a.mp3")
    path.write_bytes(b"another")

    with pytest.raises(ClaimLost, match="changed"):
        spool.store.claim("a.mp3", seen, FORMATS, created_at=SEEN_AT)

    assert spool.files("inbox") == {"a.mp3": b"another"}
    assert spool.jobs() == set()


def replaced_by_symlink(path):
    path.symlink_to("/etc/passwd")


def replaced_by_fifo(path):
    os.mkfifo(path)


def replaced_by_folder(path):
    path.mkdir()


def replaced_by_file(path):
    path.write_bytes(b"another")


def replaced_by_nothing(path):
    pass


SWAPS = pytest.mark.parametrize(
    "swap",
    [replaced_by_symlink, replaced_by_fifo, replaced_by_folder, replaced_by_file, replaced_by_nothing],
    ids=lambda swap: swap.__name__,
)


@SWAPS
def test_what_was_swapped_in_after_it_settled_is_not_taken(spool, swap):
    """A symlink to /etc/passwd is neither read nor moved, and a FIFO does not block."""
    path = spool.upload("a.mp3")
    seen = spool.seen("a.mp3")
    path.unlink()
    swap(path)
    before = path.lstat() if os.path.lexists(path) else None

    with pytest.raises(ClaimLost):
        spool.store.claim("a.mp3", seen, FORMATS, created_at=SEEN_AT)

    assert (path.lstat() if os.path.lexists(path) else None) == before
    assert spool.jobs() == set()


@SWAPS
def test_what_is_swapped_in_while_it_is_claimed_is_given_back(spool, monkeypatch, swap):
    """The look and the rename are two steps: what the rename brought is looked at once more."""
    path = spool.upload("a.mp3")
    seen = spool.seen("a.mp3")

    def act():
        path.unlink()
        swap(path)

    at(monkeypatch, claim__after_record=act)

    with pytest.raises(ClaimLost):
        spool.store.claim("a.mp3", seen, FORMATS, created_at=SEEN_AT)

    assert os.path.lexists(path) == (swap is not replaced_by_nothing)
    assert spool.jobs() == set()


def test_what_is_given_back_overwrites_nothing(spool, monkeypatch):
    """Somebody may have uploaded the name once more by then."""
    path = spool.upload("a.mp3", b"settled")
    seen = spool.seen("a.mp3")
    at(
        monkeypatch,
        claim__after_record=lambda: path.write_bytes(b"changed"),
        claim__after_move=lambda: path.write_bytes(b"uploaded again"),
    )

    with pytest.raises(ClaimLost):
        spool.store.claim("a.mp3", seen, FORMATS, created_at=SEEN_AT)

    assert spool.files("inbox") == {"a.mp3": b"uploaded again", "a-2.mp3": b"changed"}


def test_a_folder_that_went_away_is_a_lost_claim(spool):
    """With the file in it."""
    spool.upload("alice/a.mp3")
    seen = spool.seen("alice/a.mp3")
    (spool.layout.inbox / "alice").rename(spool.layout.inbox / "bob")

    with pytest.raises(ClaimLost, match="went away"):
        spool.store.claim("alice/a.mp3", seen, FORMATS, created_at=SEEN_AT)


def test_a_folder_of_the_inbox_that_became_a_symlink_is_not_followed(spool):
    """It would lead out of the spool."""
    spool.upload("alice/a.mp3")
    seen = spool.seen("alice/a.mp3")
    (spool.layout.inbox / "alice").rename(spool.layout.root / "elsewhere")
    (spool.layout.inbox / "alice").symlink_to(spool.layout.root / "elsewhere")

    with pytest.raises(ClaimLost):
        spool.store.claim("alice/a.mp3", seen, FORMATS, created_at=SEEN_AT)

    assert (spool.layout.root / "elsewhere" / "a.mp3").exists()


# --- start, release, retry ---


def test_an_attempt_is_counted_on_disk_before_the_work_starts(spool):
    """So a file that kills worker and daemon still counts; the first start stays on record."""
    job = spool.store.start(spool.take("a.mp3"))
    (found,) = spool.restart().queued

    assert found == job
    assert (job.attempts, job.suspect) == (1, True)
    assert spool.store.start(found).started_at == job.started_at


def test_a_job_that_is_given_back_has_spent_no_attempt(spool):
    """A shutdown is not its fault."""
    job = spool.store.record(spool.store.start(spool.take("a.mp3")).given_back())

    assert (job.attempts, job.suspect) == (0, False)
    assert spool.restart().queued == [job]


def test_a_job_that_is_tried_again_has_spent_one(spool):
    """But nobody suspects it of having killed the daemon."""
    job = spool.store.record(spool.store.start(spool.take("a.mp3")).failed_once())

    assert (job.attempts, job.suspect) == (1, False)
    assert spool.restart().queued == [job]


def test_a_job_is_given_back_to_the_inbox(spool):
    """Its original, and nothing else, is left of it."""
    job = spool.store.start(spool.take("alice/a.wav", b"changed meanwhile"))
    spool.store.show(job)
    spool.render(job)
    os.rmdir(spool.layout.inbox / "alice")

    assert spool.store.release(job) == "alice/a.wav"
    assert spool.files("inbox") == {"alice/a.wav": b"changed meanwhile"}
    assert spool.jobs() == set()
    with pytest.raises(FileNotFoundError):
        spool.sidecar("alice/a.wav")
    assert spool.claim("alice/a.wav").place == "alice/a.wav"


def test_a_job_given_back_overwrites_nothing(spool):
    """Somebody may have uploaded a file of that name meanwhile."""
    job = spool.take("a.wav", b"first")
    spool.upload("a.wav", b"second")

    assert spool.store.release(job) == "a-2.wav"
    assert spool.files("inbox") == {"a.wav": b"second", "a-2.wav": b"first"}


def test_an_attempt_notes_what_its_worker_will_read(spool):
    """The rename of the claim has changed ctime, and a writer may have been at work since."""
    job = spool.take("a.wav", b"first")
    original = spool.layout.job_directory(job.id) / job.original
    original.write_bytes(b"longer than first")

    started = spool.store.start(job)
    assert started.signature.size == 17
    assert started.signature.ctime_ns == original.stat().st_ctime_ns


def test_a_claim_of_what_changed_since_is_lost(spool):
    """The file settles again."""
    path = spool.upload("a.wav")
    seen = spool.seen("a.wav")
    path.write_bytes(b"something else")

    with pytest.raises(ClaimLost):
        spool.store.claim("a.wav", seen, ("txt",), created_at="")


# --- finish and fail ---


@hard_names
def test_a_finished_job_has_its_transcripts_its_status_file_and_its_original_in_done(spool, name):
    """And nothing else; nothing is left in .work."""
    job = spool.finish(spool.take(name, b"sound"))

    assert job.place == name
    assert everything(spool) == {
        "inbox": {},
        "outbox": {output(name, kind): text(job.id, kind) for kind in FORMATS},
        "done": {name: b"sound"},
        "failed": {},
    }
    assert spool.sidecar(name)["status"] == "completed"
    assert spool.jobs() == set()


@hard_names
def test_a_failed_job_has_its_status_file_and_its_original_in_failed(spool, name):
    """With the reason."""
    spool.store.fail(spool.take(name, b"sound"), FAILURE)

    assert everything(spool) == {"inbox": {}, "outbox": {}, "done": {}, "failed": {name: b"sound"}}
    assert (spool.sidecar(name)["status"], spool.sidecar(name)["error"]["code"]) == ("failed", "no_audio")
    assert spool.jobs() == set()


@hard_names
def test_a_retried_job_gets_the_names_it_had(spool, name):
    """Moved back from failed/ it is claimed anew, and its failed status file gives way."""
    failed = spool.store.fail(spool.take(name, b"sound"), FAILURE)
    (spool.layout.failed / name).rename(spool.layout.inbox / name)

    job = spool.finish(spool.claim(name))

    assert job.id != failed.id
    assert job.place == name
    assert spool.sidecar(name)["status"] == "completed"
    assert everything(spool)["done"] == {name: b"sound"}


@pytest.mark.parametrize("end", ["done", "failed"])
def test_an_original_keeps_its_times_and_its_mode(spool, end):
    """An archive is sorted by them."""
    path = spool.upload("alice/a.mp3")
    path.chmod(0o640)
    os.utime(path, ns=(1, 1_000_000_001))
    job = spool.claim("alice/a.mp3")
    spool.finish(job) if end == "done" else spool.store.fail(job, FAILURE)

    status = (spool.layout.root / end / "alice/a.mp3").stat()
    assert (status.st_mtime_ns, stat.S_IMODE(status.st_mode)) == (1_000_000_001, 0o640)


@pytest.mark.parametrize("others", ["a.wav", "a.mp3", "a", "a.flac"])
def test_two_uploads_with_the_same_transcript_names_are_both_kept(spool, others):
    """The second gets one suffix for all that is its."""
    first, second = spool.take("a.mp3", b"1"), spool.take(others, b"2")
    second, first = spool.finish(second), spool.finish(first)

    stem, extension = names.stem_and_extension(others)
    assert (first.place, second.place) == ("a.mp3", f"{stem}-2{extension}")
    assert spool.files("done") == {"a.mp3": b"1", second.place: b"2"}
    assert set(spool.files("outbox")) == {"a.txt", "a.json", "a-2.txt", "a-2.json"}
    assert spool.sidecar(second.place)["name"] == others


def test_the_same_name_three_times(spool):
    """One after the other, as people upload `recording.mp3` each day."""
    for _ in range(3):
        spool.finish(spool.take("a.mp3"))

    assert set(spool.files("done")) == {"a.mp3", "a-2.mp3", "a-3.mp3"}
    assert len(set(spool.files("outbox").values())) == 6


STATUS_FILE = "b/a.mp3.status.json"
COLLISIONS = [
    ("start", "outbox/b/a.txt"),
    ("start", "outbox/b/a.json"),
    ("start", "outbox/" + STATUS_FILE),
    ("start", "done/b/a.mp3"),
    ("publish__after_result", "outbox/b/a.json"),
    ("publish__after_result", "outbox/" + STATUS_FILE),
    ("publish__after_output", "outbox/b/a.json"),
    ("publish__after_output", "outbox/" + STATUS_FILE),
    ("publish__after_output", "done/b/a.mp3"),
    ("publish__after_status_file", "done/b/a.mp3"),
]


@pytest.mark.parametrize(("moment", "path"), COLLISIONS)
def test_a_name_taken_while_the_job_ran_moves_the_whole_job(spool, monkeypatch, moment, path):
    """What was published already moves with it, its old status file goes, and the stranger's file stays as it is."""
    job = spool.take("b/a.mp3", b"sound")
    spool.store.show(job, sync=True)
    rendered = spool.render(job)
    if moment == "start":
        spool.put(path)
    else:
        at(monkeypatch, **{moment: lambda: spool.put(path)})

    job = spool.store.finish(job, rendered)

    assert job.place == "b/a-2.mp3"
    assert (spool.layout.root / path).read_bytes() == b"a stranger's"
    (spool.layout.root / path).unlink()
    assert everything(spool) == {
        "inbox": {},
        "outbox": {"b/a-2.txt": text(job.id, "txt"), "b/a-2.json": text(job.id, "json")},
        "done": {"b/a-2.mp3": b"sound"},
        "failed": {},
    }
    assert not (spool.layout.outbox / STATUS_FILE).exists()
    assert spool.sidecar("b/a-2.mp3")["outputs"]["txt"] == "outbox/b/a-2.txt"
    assert spool.jobs() == set()


@pytest.mark.parametrize(
    ("moment", "path"),
    [
        ("start", "outbox/" + STATUS_FILE),
        ("start", "failed/b/a.mp3"),
        ("fail__after_record", "outbox/" + STATUS_FILE),
        ("fail__after_status_file", "failed/b/a.mp3"),
    ],
)
def test_a_name_taken_while_the_job_failed_moves_the_whole_job(spool, monkeypatch, moment, path):
    """As when it is finished."""
    job = spool.take("b/a.mp3", b"sound")
    spool.store.show(job, sync=True)
    if moment == "start":
        spool.put(path)
    else:
        at(monkeypatch, **{moment: lambda: spool.put(path)})

    job = spool.store.fail(job, FAILURE)

    assert job.place == "b/a-2.mp3"
    assert (spool.layout.root / path).read_bytes() == b"a stranger's"
    (spool.layout.root / path).unlink()
    assert everything(spool) == {"inbox": {}, "outbox": {}, "done": {}, "failed": {"b/a-2.mp3": b"sound"}}
    assert not (spool.layout.outbox / STATUS_FILE).exists()
    assert spool.sidecar("b/a-2.mp3")["original"] == "failed/b/a-2.mp3"


@pytest.mark.parametrize("room", ["outbox", "done"])
@pytest.mark.parametrize("obstacle", ["file", "symlink"])
def test_a_folder_blocked_while_the_job_ran_moves_the_whole_job(spool, room, obstacle):
    """A symlink is not followed, and the job does not wait for somebody to remove it."""
    job = spool.take("b/a.mp3", b"sound")
    target = spool.layout.root / room / "b"
    target.touch() if obstacle == "file" else target.symlink_to(spool.layout.inbox)

    job = spool.finish(job)

    assert job.place == "b-2/a.mp3"
    assert spool.files("done")["b-2/a.mp3"] == b"sound"
    assert set(spool.files("outbox")) - {"b"} == {"b-2/a.txt", "b-2/a.json"}
    assert spool.files("inbox") == {}


def test_a_folder_blocked_while_the_job_failed_moves_the_whole_job(spool):
    """As when it is finished."""
    job = spool.take("b/a.mp3", b"sound")
    spool.put("failed/b")

    assert spool.store.fail(job, FAILURE).place == "b-2/a.mp3"
    assert spool.files("failed")["b-2/a.mp3"] == b"sound"


def test_a_transcript_that_a_user_took_away_at_once_does_not_hold_up_the_job(spool, monkeypatch):
    """Even if the job must then move: what is gone is not looked for."""
    job = spool.take("a.mp3", b"sound")

    def user():
        (spool.layout.outbox / "a.txt").unlink()
        spool.put("done/a.mp3")

    at(monkeypatch, publish__after_status_file=user)
    job = spool.finish(job)

    assert job.place == "a-2.mp3"
    assert spool.files("outbox") == {"a-2.json": text(job.id, "json")}
    assert spool.files("done") == {"a.mp3": b"a stranger's", "a-2.mp3": b"sound"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["move", "write"])
@pytest.mark.parametrize("end", ["done", "failed"])
def test_an_end_that_could_not_be_written_is_written_by_calling_again(spool, monkeypatch, code, call, end):
    """Nothing is lost and nothing is done twice."""
    job = spool.take("b/a.mp3", b"sound")
    rendered = spool.render(job)
    write_down = (
        (lambda: spool.store.finish(job, rendered)) if end == "done" else (lambda: spool.store.fail(job, FAILURE))
    )
    module = job_directory if end == "failed" else publish
    breaking(monkeypatch, call, code, status_file if call == "write" else module)

    with pytest.raises(OSError):
        write_down()
    write_down()

    assert spool.files(end) == {"b/a.mp3": b"sound"}
    assert set(spool.files("outbox")) == ({"b/a.txt", "b/a.json"} if end == "done" else set())
    assert spool.sidecar("b/a.mp3")["status"] == ("completed" if end == "done" else "failed")
    assert spool.jobs() == set()


def test_what_cannot_be_swept_up_at_the_end_is_at_the_next_start(spool, monkeypatch):
    """The end was reached: to write it again would fail for ever once the directory is half gone."""
    job = spool.take("a.mp3")
    breaking(monkeypatch, "remove_tree", errno.EIO)
    spool.finish(job)
    assert spool.jobs() == {job.id}
    spool.restart()

    assert spool.jobs() == set()


def test_what_stands_in_the_way_and_cannot_be_seen_does_not_keep_the_daemon_in_a_circle(spool, monkeypatch):
    """The caller hears of it and tries again later."""
    job = spool.take("a.mp3")
    rendered = spool.render(job)

    def refuse(*arguments):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    monkeypatch.setattr(publish, "move", refuse)

    with pytest.raises(FileExistsError):
        spool.store.finish(job, rendered)


@needs_root
def test_what_is_published_gets_the_group_of_a_setgid_outbox(spool):
    """Transcripts, status file and sub-folders: so those who share the spool can read and remove them."""
    os.chown(spool.layout.outbox, -1, OTHER_GROUP)
    spool.layout.outbox.chmod(0o2775)

    spool.finish(spool.take("b/a.mp3"))

    below = list(spool.layout.outbox.rglob("*"))
    assert len(below) == 4
    assert {path.stat().st_gid for path in below} == {OTHER_GROUP}


# --- status files ---


def test_a_status_file_follows_its_job(spool):
    """Each write replaces the one before."""
    job = spool.take("a.mp3")
    phases = []
    for progress in (Progress(queue_position=1), Progress(Phase.DECODING), Progress(Phase.TRANSCRIBING, 1.0, 4.0)):
        spool.store.show(job, progress=progress)
        phases.append((spool.sidecar("a.mp3")["phase"], spool.sidecar("a.mp3")["progress"]))

    assert phases == [("queued", 0.0), ("decoding", 0.0), ("transcribing", 25.0)]
