"""The same content again: what counts as such, what is written of it, and what a crash leaves."""

import hashlib
import itertools
from types import SimpleNamespace

import pytest
from support.spool import FORMATS, Spool

from whisperd.core import slices
from whisperd.core.slices import Slice
from whisperd.daemon.duplicates import Duplicates
from whisperd.spool import job_directory, status_file
from whisperd.spool.durable import Folder

SOUND = b"a recording" * 100


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


@pytest.fixture
def first(spool):
    """A completed job with the content SOUND."""
    return transcribed(spool, "alice/a.wav")


def transcribed(spool, name, content=SOUND, formats=FORMATS):
    job = spool.take(name, content)
    rendered = spool.render(job, formats)
    return spool.store.finish(job, changed(rendered, sha256=hashlib.sha256(content).hexdigest()))


def changed(value, **changes):
    return type(value)(**{name: getattr(value, name) for name in value.__slots__} | changes)


def comparer(spool, *, skip=True):
    """What a daemon that has just started has, once it has read the outbox."""
    duplicates = Duplicates(spool.layout)
    duplicates.configure(skip=skip)
    while duplicates.is_reading:
        duplicates.read_on(Slice())
    return duplicates


def compared(duplicates, job):
    """The earlier result for a job; None if it is to be transcribed."""
    if not duplicates.is_candidate(job):
        return None
    while (decided := duplicates.compare(job, Slice())) is None:
        pass
    decided_on, result = decided
    assert decided_on.id == job.id
    return result


def take_away(spool, path):
    (spool.layout.root / path).unlink()


def test_the_same_content_under_another_name(spool, first):
    """It completes with the transcripts of the first, and its original goes under its own name."""
    job = spool.take("bob/b.wav", SOUND)
    result = compared(comparer(spool), job)
    spool.store.finish(job, result)

    document, earlier = spool.sidecar("bob/b.wav"), spool.sidecar("alice/a.wav")
    assert (document["status"], document["duplicate_of"]) == ("completed", "alice/a.wav")
    assert (document["outputs"], document["sha256"]) == (earlier["outputs"], earlier["sha256"])
    assert (document["id"], document["original"]) == (job.id, "done/bob/b.wav")
    assert spool.files("done") == {"alice/a.wav": SOUND, "bob/b.wav": SOUND}
    assert sorted(spool.files("outbox")) == ["alice/a.json", "alice/a.txt"]
    assert spool.jobs() == set()


def test_the_same_content_under_the_same_name(spool, first):
    """It gets the number that any second upload of a name gets."""
    job = spool.take("alice/a.wav", SOUND)
    spool.store.finish(job, compared(comparer(spool), job))

    assert spool.sidecar("alice/a-2.wav")["duplicate_of"] == "alice/a.wav"
    assert spool.sidecar("alice/a.wav")["duplicate_of"] is None
    assert set(spool.files("done")) == {"alice/a.wav", "alice/a-2.wav"}


def test_a_third_one_points_to_the_first(spool, first):
    """Not to another that has no transcripts of its own."""
    for name in ("b.wav", "c.wav"):
        job = spool.take(name, SOUND)
        spool.store.finish(job, compared(comparer(spool), job))

    assert [spool.sidecar(name)["duplicate_of"] for name in ("b.wav", "c.wav")] == ["alice/a.wav"] * 2


def test_what_was_completed_since_the_start_is_known(spool):
    """Without reading the outbox again."""
    duplicates = comparer(spool)
    job = spool.take("a.wav", SOUND)
    result = changed(spool.render(job), sha256=hashlib.sha256(SOUND).hexdigest())
    duplicates.remember(spool.store.finish(job, result), result)

    assert compared(duplicates, spool.take("b.wav", SOUND)).duplicate_of == "a.wav"


def test_jobs_that_come_before_the_outbox_is_read_wait_for_it(spool, first):
    """Nobody is transcribed twice because the daemon has just started."""
    duplicates = Duplicates(spool.layout)
    duplicates.configure(skip=True)

    assert compared(duplicates, spool.take("b.wav", SOUND)).duplicate_of == "alice/a.wav"


def test_an_upload_of_a_length_never_seen_is_not_even_read(spool, first):
    """It cannot be the same."""
    assert not comparer(spool).is_candidate(spool.take("b.wav", SOUND + b"x"))


def test_as_long_and_different(spool, first):
    """Length is only the first question."""
    assert compared(comparer(spool), spool.take("b.wav", SOUND[:-1] + b"x")) is None


@pytest.mark.parametrize(
    "path", ["outbox/alice/a.txt", "outbox/alice/a.wav.status.json"], ids=["a transcript", "the status file"]
)
@pytest.mark.parametrize("when", ["before the start", "after it"])
def test_what_is_no_longer_there_is_not_pointed_to(spool, first, path, when):
    """Who removes a transcript can have it made again."""
    if when == "before the start":
        take_away(spool, path)
        duplicates = comparer(spool)
    else:
        duplicates = comparer(spool)
        take_away(spool, path)

    assert compared(duplicates, spool.take("b.wav", SOUND)) is None


def test_a_format_that_the_first_does_not_have(spool, first):
    """The transcripts must be all that this upload would get."""
    spool.upload("b.wav", SOUND)

    assert compared(comparer(spool), spool.claim("b.wav", (*FORMATS, "srt"))) is None


@pytest.mark.parametrize(
    "content",
    [b"{", b'{"schema": 1, "id": 1, "status": "completed", "original": 1}', b'{"schema": 1, "outputs": []}'],
    ids=["torn", "fields missing", "another's"],
)
def test_a_status_file_that_somebody_edited_is_passed_over(spool, first, content):
    """People can write into the outbox; the daemon must not stumble."""
    spool.put("outbox/alice/a.wav.status.json", content)

    assert not any(status_file.find_all_completed(spool.layout))
    assert compared(comparer(spool), spool.take("b.wav", SOUND)) is None


@pytest.mark.parametrize("name", ["b\udcff\udcfe.wav", "new\nline.wav", "back\\slash.wav"], ids=ascii)
def test_names_that_cannot_be_shown_as_they_are(spool, name):
    """Read back from the name of the status file, which is bytes."""
    transcribed(spool, name)
    result = compared(comparer(spool), spool.take("b.wav", SOUND))

    assert result.duplicate_of == name


def test_a_shortened_status_file_points_nowhere_wrong(spool):
    """Of the longest names too little is left to find the transcripts by; then the work is done again."""
    transcribed(spool, "x" * 251 + ".wav")

    assert compared(comparer(spool), spool.take("b.wav", SOUND)) is None


def test_turned_off_it_lets_go_of_what_it_holds(spool, first):
    """A reload must not leave a job behind."""
    duplicates = comparer(spool)
    job = spool.take("b.wav", SOUND)
    assert duplicates.is_candidate(job)
    duplicates.configure(skip=False)

    assert duplicates.compare(job, Slice()) == (job, None)
    assert not duplicates.is_candidate(spool.take("c.wav", SOUND))


def test_a_long_recording_is_read_in_slices(spool, first, monkeypatch):
    """The loop has other things to do; here each slice is one block."""
    monkeypatch.setattr("whisperd.intake.complete.BLOCK_BYTES", 100)
    duplicates = comparer(spool)
    job = spool.take("b.wav", SOUND)
    times = itertools.count()
    monkeypatch.setattr(slices, "SLICE_SECONDS", 1.0)
    monkeypatch.setattr(slices, "time", SimpleNamespace(monotonic=lambda: next(times)))
    turns = 0
    while duplicates.compare(job, Slice()) is None:
        turns += 1

    assert turns == len(SOUND) // 100


def test_an_original_that_cannot_be_read_is_left_to_the_worker(spool, first):
    """It says why."""
    duplicates = comparer(spool)
    job = spool.take("b.wav", SOUND)
    (spool.layout.job_directory(job.id) / job.original).unlink()

    assert compared(duplicates, job) is None


def cut_off(spool):
    """A daemon decided that b.wav is a duplicate, wrote that down and died."""
    job = spool.take("b.wav", SOUND)
    result = compared(comparer(spool), job)
    with Folder(spool.layout.job_directory(job.id)) as own:
        job_directory.save(own, job_directory.RESULT, result)
    return job, result


def test_a_crash_after_the_decision(spool, first):
    """The next daemon goes on with it."""
    job, result = cut_off(spool)

    assert spool.restart().to_finish == [(job, result)]


def test_a_crash_after_the_decision_and_the_transcripts_are_gone(spool, first):
    """What was decided no longer holds: the recording is transcribed."""
    job, _ = cut_off(spool)
    take_away(spool, "outbox/alice/a.txt")
    found = spool.restart()

    assert (found.queued, found.to_finish) == ([job], [])


def test_a_name_that_was_taken_meanwhile_moves_nothing_of_others(spool, first):
    """A duplicate has no transcripts to take along: one that stands under its stem is somebody else's."""
    job = spool.take("b.wav", SOUND)
    result = compared(comparer(spool), job)
    spool.put("outbox/b.txt")
    spool.put("done/b.wav")
    job = spool.store.finish(job, result)

    assert job.place == "b-2.wav"
    assert spool.files("outbox")["b.txt"] == spool.files("done")["b.wav"] == b"a stranger's"
    assert spool.files("done")["b-2.wav"] == SOUND
    assert spool.sidecar("b-2.wav")["outputs"]["txt"] == "outbox/alice/a.txt"
