"""The text of a job so far, on its way into the outbox: it grows, nobody's file is touched, and at every end it is gone."""

import errno
import os
import shutil

import pytest
from support.spool import FAILURE, FORMATS, SEEN_AT, Spool

from whisperd.core.job import Phase, Progress
from whisperd.daemon.registry import Registry
from whisperd.daemon.status_files import StatusWriter
from whisperd.settings import config
from whisperd.settings.profiles import resolve
from whisperd.spool import names, publish

TRANSCRIBING = Progress(Phase.TRANSCRIBING)
FIRST, SECOND = b"Ask not\n", b"Ask not\nwhat your country\n"


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def take(spool, name, *, wanted=True):
    settings = config.validate({"output": {"partial": wanted}}, source="test")
    spool.upload(name)
    return spool.store.claim(name, spool.seen(name), FORMATS, created_at=SEEN_AT, spec=resolve(settings, name))


def says(spool, job, text):
    """What a worker does."""
    (spool.layout.job_directory(job.id) / "partial.txt").write_bytes(text)


def shown(spool, job):
    """What the outbox says after a look of the supervisor; None if nothing stands there."""
    StatusWriter(spool.store, Registry()).show(job, TRANSCRIBING)
    return spool.files("outbox").get("a.partial.txt")


def test_it_grows_line_by_line_in_one_file(spool):
    """So `tail -f` goes on; of a line that is being written nothing is shown."""
    job = take(spool, "a.mp3")
    assert shown(spool, job) is None
    says(spool, job, FIRST)
    assert shown(spool, job) == FIRST
    inode = (spool.layout.outbox / "a.partial.txt").stat().st_ino
    says(spool, job, SECOND + b"can")

    assert shown(spool, job) == SECOND
    assert (spool.layout.outbox / "a.partial.txt").stat().st_ino == inode


def test_one_that_nobody_wants_is_not_shown(spool):
    """Nor is its name kept from others."""
    job = take(spool, "a.mp3", wanted=False)
    says(spool, job, FIRST)

    assert shown(spool, job) is None
    assert take(spool, "a.partial.mp3").place == "a.partial.mp3"


ENDS = {
    "completed": lambda spool, job: spool.finish(job),
    "failed": lambda spool, job: spool.store.fail(job, FAILURE),
    "given back": lambda spool, job: spool.store.release(job),
    "forgotten": lambda spool, job: spool.store.forget(job),
    "waiting": lambda spool, job: StatusWriter(spool.store, Registry()).show(job, Progress()),
    "another attempt": lambda spool, job: StatusWriter(spool.store, Registry()).show(job, Progress(Phase.DECODING)),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("restarted", [False, True])
def test_it_stands_only_while_the_job_is_transcribed(spool, end, restarted):
    """Whatever ends that, though it has grown since it was shown, and whether or not the daemon is the same."""
    job = take(spool, "a.mp3")
    says(spool, job, FIRST)
    assert shown(spool, job) == FIRST
    says(spool, job, SECOND)
    if restarted:
        spool.restart()
    ENDS[end](spool, job)

    assert "a.partial.txt" not in spool.files("outbox")


def test_it_is_gone_before_the_status_file_says_completed_and_the_transcript_is_there(spool, monkeypatch):
    """Whoever reads `completed` finds no text that is not whole."""
    job = take(spool, "a.mp3")
    says(spool, job, FIRST)
    shown(spool, job)
    seen = []
    show = spool.store.show
    monkeypatch.setattr(
        spool.store, "show", lambda *a, **k: (seen.append(sorted(spool.files("outbox"))), show(*a, **k))[1]
    )
    spool.finish(job)

    assert seen == [["a.json", "a.txt"]]


def test_it_goes_with_the_place_that_a_job_gives_up(spool):
    """A stranger's file appears where a transcript was to go: the whole job gets a number, and nothing stays behind."""
    job = take(spool, "a.mp3")
    says(spool, job, FIRST)
    shown(spool, job)
    spool.put("outbox/a.json")

    assert spool.finish(job).place == "a-2.mp3"
    assert set(spool.files("outbox")) == {"a.json", "a-2.txt", "a-2.json"}


def test_of_a_job_whose_files_somebody_has_removed_it_is_removed_too(spool):
    """By what was shown, for the worker's file is gone."""
    job = take(spool, "a.mp3")
    says(spool, job, FIRST)
    shown(spool, job)
    shutil.rmtree(spool.layout.job_directory(job.id))
    spool.store.forget(job)

    assert spool.files("outbox") == {}


def test_of_a_job_whose_record_is_damaged_it_is_removed_too(spool):
    """The job goes on under another name."""
    job = take(spool, "b/a.mp3")
    says(spool, job, FIRST)
    StatusWriter(spool.store, Registry()).show(job, TRANSCRIBING)
    assert spool.files("outbox") == {"b/a.partial.txt": FIRST}
    (spool.layout.job_directory(job.id) / "job.json").write_bytes(b"")
    spool.restart()

    assert spool.files("outbox") == {}


# --- other people's files ---


def test_a_name_that_is_taken_gives_the_whole_job_a_number(spool):
    """A transcript of `a.partial.mp3` is one such; and no other job gets the name of one that is wanted."""
    spool.put("outbox/a.partial.txt")

    assert take(spool, "a.mp3").place == "a-2.mp3"
    assert take(spool, "b.mp3").place == "b.mp3"
    assert take(spool, "b.partial.mp3").place == "b.partial-2.mp3"
    spool.restart()
    assert take(spool, "b.partial.wav").place == "b.partial-3.wav"


@pytest.mark.parametrize("content", [b"", b"mine\n", FIRST + b"and my notes\n", SECOND + b"more\n"], ids=repr)
@pytest.mark.parametrize("when", ["before it is shown", "in its place"])
def test_what_is_not_the_beginning_of_the_text_is_never_touched(spool, caplog, content, when):
    """Somebody put it there after the claim, or has edited it; it is said once, and the job goes on."""
    job = take(spool, "a.mp3")
    says(spool, job, FIRST)
    if when == "in its place":
        shown(spool, job)
    path = spool.put("outbox/a.partial.txt", content)
    for text in (SECOND, SECOND + b"can do\n", SECOND + b"can do\nfor you\n"):
        says(spool, job, text)
        assert shown(spool, job) == content
    spool.finish(job)

    assert path.read_bytes() == content
    assert [record.message for record in caplog.records] == ["a.mp3: its text so far cannot be shown: File exists"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_what_is_no_file_is_neither_read_nor_touched(spool, make, tmp_path):
    """In the outbox, where people write, and in the job's directory, where a worker does."""
    job = take(spool, "a.mp3")
    own = spool.layout.job_directory(job.id) / "partial.txt"
    make(own)
    assert shown(spool, job) is None
    own.rmdir() if own.is_dir() else own.unlink()
    says(spool, job, FIRST)
    stray = spool.layout.outbox / "a.partial.txt"
    make(stray)
    before = stray.lstat()
    StatusWriter(spool.store, Registry()).show(job, TRANSCRIBING)
    spool.finish(job)

    assert stray.lstat() == before


def test_a_text_of_any_length_is_read_up_to_a_bound(spool, monkeypatch):
    """A worker gone mad must not fill the supervisor."""
    monkeypatch.setattr(publish, "PARTIAL_BYTES_MAX", 20)
    job = take(spool, "a.mp3")
    says(spool, job, FIRST * 100)

    assert shown(spool, job) == FIRST * 2
    spool.store.fail(job, FAILURE)
    assert spool.files("outbox") == {}


def test_the_longest_name_has_one_too(spool):
    """Cut as the others are."""
    job = take(spool, "\udcff" * 255)
    says(spool, job, FIRST)
    StatusWriter(spool.store, Registry()).show(job, TRANSCRIBING)

    assert spool.files("outbox") == {names.output(job.place, "partial.txt"): FIRST}


# --- trouble ---


def test_no_room_harms_nothing_and_is_logged_once(spool, monkeypatch, caplog):
    """What was cut off is mended once there is room, and removed at the end."""
    job = take(spool, "a.mp3")
    says(spool, job, FIRST)
    shown(spool, job)
    written = os.write

    def full(fd, data):
        written(fd, data[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for text in (SECOND, SECOND * 2):
            says(spool, job, text)
            spool.store.partials.show(job)
    assert spool.files("outbox")["a.partial.txt"] == SECOND[: len(FIRST) + 6]
    assert [record.message for record in caplog.records] == [
        "a.mp3: its text so far cannot be shown: No space left on device"
    ]
    says(spool, job, SECOND * 3)

    assert shown(spool, job) == SECOND * 3
    spool.finish(job)
    assert set(spool.files("outbox")) == {"a.txt", "a.json"}


def test_one_that_cannot_be_removed_holds_the_end_up(spool, monkeypatch):
    """As a status file that cannot be written does: it is tried again, and the status file does not say `completed` before."""
    job = take(spool, "a.mp3")
    says(spool, job, FIRST)
    shown(spool, job)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", lambda *a, **k: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        with pytest.raises(OSError, match="Input/output error"):
            spool.finish(job)
    assert spool.sidecar("a.mp3")["status"] == "in_progress"
    spool.store.finish(job, spool.render(job, ()))

    assert set(spool.files("outbox")) == {"a.txt", "a.json"}
