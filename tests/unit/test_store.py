"""The four transitions on real files: claim, release, finish, fail, and what users do in between."""

import errno
import json
import os
import stat

import pytest
from support.spool import FAILURE, FORMATS, SEEN_AT, Spool, text

from whisperd.errors import ClaimLost, ClaimRefused, SpoolFull
from whisperd.job import Phase, Progress
from whisperd.spool import names, records, store
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


def at(monkeypatch, name, act):
    """Let somebody act in the middle of a transition."""
    acted = []

    def failpoint(reached):
        if reached == name and not acted:
            acted.append(name)
            act()

    monkeypatch.setattr(store, "failpoint", failpoint)
    return acted


def breaking(monkeypatch, call, code, module=store):
    """Let a step of the store fail, once."""
    real = getattr(module, call)
    failed = []

    def step(*arguments, **options):
        if not failed:
            failed.append(call)
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    monkeypatch.setattr(module, call, step)


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
    acted = at(
        monkeypatch, "claim.after_move", lambda: found.append(os.listdir(spool.layout.job_directory(*spool.jobs())))
    )
    job = spool.take("a.mp3")

    with Folder(spool.layout.job_directory(job.id)) as own:
        assert records.load_job(own) == job
    assert acted
    assert sorted(found[0]) == ["job.json", "original.mp3"]


def test_the_directory_of_a_job_is_private(spool):
    """Its recording may be."""
    job = spool.take("a.mp3")

    assert stat.S_IMODE(spool.layout.job_directory(job.id).stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("name", "original"),
    [("a.MP3", "original.mp3"), ("a.tar.gz", "original.gz"), ("a", "original"), ("a.x y", "original")],
)
def test_the_original_keeps_its_extension_where_it_is_harmless(spool, name, original):
    """ffmpeg guesses by it."""
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

    acted = at(monkeypatch, "claim.after_record", act)

    with pytest.raises(ClaimLost):
        spool.store.claim("a.mp3", seen, FORMATS, created_at=SEEN_AT)

    assert acted
    assert os.path.lexists(path) == (swap is not replaced_by_nothing)
    assert spool.jobs() == set()


def test_what_is_given_back_overwrites_nothing(spool, monkeypatch):
    """Somebody may have uploaded the name once more by then."""
    path = spool.upload("a.mp3", b"settled")
    seen = spool.seen("a.mp3")
    at(monkeypatch, "claim.after_record", lambda: path.write_bytes(b"changed"))
    real = store._expect
    monkeypatch.setattr(Spool, "late", lambda *a: None, raising=False)
    moves = []

    def move(*arguments):
        store_move(*arguments)
        if not moves:
            moves.append(arguments)
            path.write_bytes(b"uploaded again")

    store_move = store.move
    monkeypatch.setattr(store, "move", move)

    with pytest.raises(ClaimLost):
        spool.store.claim("a.mp3", seen, FORMATS, created_at=SEEN_AT)

    assert real
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


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, SpoolFull),
        (errno.EDQUOT, SpoolFull),
        (errno.EIO, SpoolFull),
        (errno.EACCES, ClaimRefused),
        (errno.EXDEV, ClaimRefused),
        (errno.ENOENT, ClaimLost),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else None,
)
@pytest.mark.parametrize("step", ["move", "record"])
def test_a_claim_that_fails_leaves_everything_as_it_was(spool, monkeypatch, code, kind, step):
    """The upload in the inbox, no directory in .work, no name held; and says what can be done."""
    spool.upload("a.mp3")
    breaking(monkeypatch, *(("move", code) if step == "move" else ("write", code, records)))

    with pytest.raises(kind):
        spool.claim("a.mp3")

    assert spool.files("inbox") == {"a.mp3": b"a.mp3"}
    assert spool.jobs() == set()
    assert spool.claim("a.mp3").place == "a.mp3"


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
    job = spool.store.release(spool.store.start(spool.take("a.mp3")))

    assert (job.attempts, job.suspect) == (0, False)
    assert spool.restart().queued == [job]


def test_a_job_that_is_tried_again_has_spent_one(spool):
    """But nobody suspects it of having killed the daemon."""
    job = spool.store.retry(spool.store.start(spool.take("a.mp3")))

    assert (job.attempts, job.suspect) == (1, False)
    assert spool.restart().queued == [job]


# --- finish and fail ---


@hard_names
def test_a_finished_job_has_its_transcripts_its_sidecar_and_its_original_in_done(spool, name):
    """And nothing else; nothing is left in .work."""
    job = spool.finish(spool.take(name, b"sound"))

    assert job.place == name
    assert everything(spool) == {
        "inbox": {},
        "outbox": {output(name, kind): text(job, kind) for kind in FORMATS},
        "done": {name: b"sound"},
        "failed": {},
    }
    assert spool.sidecar(name)["status"] == "completed"
    assert spool.jobs() == set()


@hard_names
def test_a_failed_job_has_its_sidecar_and_its_original_in_failed(spool, name):
    """With the reason."""
    spool.store.fail(spool.take(name, b"sound"), FAILURE)

    assert everything(spool) == {"inbox": {}, "outbox": {}, "done": {}, "failed": {name: b"sound"}}
    assert (spool.sidecar(name)["status"], spool.sidecar(name)["error"]["code"]) == ("failed", "no_audio")
    assert spool.jobs() == set()


@hard_names
def test_a_retried_job_gets_the_names_it_had(spool, name):
    """Moved back from failed/ it is claimed anew, and its failed sidecar gives way."""
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


COLLISIONS = ["outbox/b/a.txt", "outbox/b/a.json", "outbox/b/a.mp3.status.json", "done/b/a.mp3"]


@pytest.mark.parametrize("moment", ["claimed", "publish.after_result", "publish.after_output", "publish.after_sidecar"])
@pytest.mark.parametrize("path", COLLISIONS)
def test_a_name_taken_while_the_job_ran_moves_the_whole_job(spool, monkeypatch, path, moment):
    """Whatever was published already moves with it; the stranger's file stays as it is."""
    job = spool.take("b/a.mp3", b"sound")
    spool.store.show(job, progress=Progress(Phase.QUEUED))
    target = spool.layout.root / path

    def stranger():
        if target.name not in os.listdir(target.parent) or target.name.endswith(names.SIDECAR_SUFFIX):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"a stranger's")

    (spool.layout.done / "b").mkdir()
    if moment == "claimed":
        stranger()
    else:
        assert at(monkeypatch, moment, stranger) == []
    if path.endswith("txt") and moment in {"publish.after_output", "publish.after_sidecar"}:
        pytest.skip("ours is there by then")
    if path.endswith("json") and moment == "publish.after_sidecar":
        pytest.skip("ours is there by then")

    job = spool.finish(job)

    assert target.read_bytes() == b"a stranger's"
    assert job.place == "b/a-2.mp3"
    theirs = {"b/a.txt": b"a stranger's"} if path.endswith("txt") else {}
    assert job
    assert theirs is not None
    assert spool.files("done")["b/a-2.mp3"] == b"sound"
    assert spool.sidecar("b/a-2.mp3")["status"] == "completed"
