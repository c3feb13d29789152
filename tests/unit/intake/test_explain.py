"""Notes on files that wait in the inbox, and a job that is given back to it."""

import os

import pytest
from support.spool import Spool

from whisperd.core.errors import ClaimLost
from whisperd.intake.explain import REWRITE_SECONDS, Explanations
from whisperd.intake.upload import Upload


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


ODD_NAMES = ["a.wav", "alice/a.wav", "b\udcff\udcfe.wav", "new\nline.wav", "back\\slash.wav", "x" * 251 + ".wav"]


def stale(spool):
    return [place for place in spool.store.stale_notes() if place is not None]


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_a_note_is_written_and_removed(spool, name):
    """Whatever the name is."""
    spool.upload(name)
    place = spool.store.explain(name, 7, "still open for writing")

    document = spool.sidecar(name)
    assert (document["status"], document["phase"], document["reason"]) == (
        "pending",
        "uploading",
        "still open for writing",
    )
    assert (document["id"], document["size_bytes"]) == (None, 7)
    spool.store.unexplain(place)
    with pytest.raises(FileNotFoundError):
        spool.sidecar(name)


def test_the_note_on_a_file_that_waits_for_weeks_is_written_anew_every_day(spool):
    """Or systemd-tmpfiles would take it for an old one."""
    spool.upload("a.wav")
    upload = Upload("a.wav", None, 0.0, 0.0)
    waiting = Explanations(spool.store, lambda upload, now: (7, "still open for writing"))
    waiting.watch(upload, 0.0)
    waiting.tick(10.0)
    path = spool.layout.outbox / "a.wav.status.json"
    os.utime(path, ns=(0, 0))
    waiting.tick(REWRITE_SECONDS)
    before = path.stat().st_mtime_ns
    waiting.tick(REWRITE_SECONDS + 20.0)

    assert before == 0
    assert path.stat().st_mtime_ns > 0


def test_a_note_beside_an_earlier_upload_of_that_name_gets_a_number(spool):
    """The sidecar of a job is never replaced by a note."""
    job = spool.finish(spool.take("a.wav"))
    spool.upload("a.wav", b"another")

    assert spool.store.explain("a.wav", 7, "empty") == "a-2.wav"
    assert spool.sidecar("a.wav")["id"] == job.id
    assert spool.claim("a.wav").place == "a-2.wav"


def test_two_files_never_share_a_note(spool):
    """`a-2.wav` is the name of an upload, too."""
    spool.finish(spool.take("a.wav"))
    first = spool.store.explain("a.wav", 1, "one")
    second = spool.store.explain("a-2.wav", 2, "two")

    assert (first, second) == ("a-2.wav", "a-2-2.wav")
    assert spool.sidecar("a-2.wav")["reason"] == "one"


def test_a_note_is_not_resurrected_after_the_claim(spool):
    """Neither by writing one late, nor by removing one late."""
    spool.upload("a.wav")
    place = spool.store.explain("a.wav", 7, "empty")
    job = spool.claim("a.wav")
    spool.store.show(job)
    spool.store.unexplain(place)
    spool.store.explain("a.wav", 7, "empty")

    assert spool.sidecar("a.wav")["id"] == job.id


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_a_note_is_stale_once_its_file_is_gone(spool, name):
    """As a daemon that died leaves it; as long as the file is there the note stays."""
    path = spool.upload(name)
    spool.store.explain(name, 7, "empty")
    assert stale(spool) == []

    path.unlink()
    (place,) = stale(spool)
    spool.store.unexplain(place)
    assert stale(spool) == []


def test_a_note_that_an_earlier_daemon_left_goes_with_its_file(spool):
    """Even where this one had no reason to write it anew, and wherever it stands."""
    spool.finish(spool.take("a.wav"))
    spool.upload("a.wav")
    spool.store.explain("a.wav", 7, "empty")
    spool.restart()
    upload = Upload("a.wav", None, 0.0, 0.0)
    waiting = Explanations(spool.store, lambda upload, now: None)
    waiting.watch(upload, 0.0)
    assert spool.sidecar("a-2.wav")["status"] == "pending"

    waiting.over(upload)
    with pytest.raises(FileNotFoundError):
        spool.sidecar("a-2.wav")


def test_the_sidecar_of_a_job_is_never_stale(spool):
    """Whether it runs, failed or is done."""
    spool.finish(spool.take("a.wav"))
    spool.store.show(spool.take("b.wav"))

    assert stale(spool) == []


def test_a_job_is_given_back_to_the_inbox(spool):
    """Its original, and nothing else, is left of it."""
    job = spool.store.start(spool.take("alice/a.wav", b"changed meanwhile"))
    spool.store.show(job)
    spool.render(job)
    os.rmdir(spool.layout.inbox / "alice")

    assert spool.store.give_back(job) == "alice/a.wav"
    assert spool.files("inbox") == {"alice/a.wav": b"changed meanwhile"}
    assert spool.jobs() == set()
    with pytest.raises(FileNotFoundError):
        spool.sidecar("alice/a.wav")
    assert spool.claim("alice/a.wav").place == "alice/a.wav"


def test_a_job_given_back_overwrites_nothing(spool):
    """Somebody may have uploaded a file of that name meanwhile."""
    job = spool.take("a.wav", b"first")
    spool.upload("a.wav", b"second")

    assert spool.store.give_back(job) == "a-2.wav"
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
