"""What is told of the end of a job, and the files of what has not been delivered."""

import json

import pytest
from support.spool import FAILURE, Spool, result

from whisperd.listeners.notifications.notification import Notification, Undelivered

STATUS = {"name": "a.wav", "status": "completed"}


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


@pytest.fixture
def job(spool):
    return spool.take("b/a\udcff.wav")


def test_a_completed_job_is_told_with_the_paths_of_its_transcripts(job):
    """As they are on disk; those of a duplicate are the earlier ones."""
    told = Notification.of(job, STATUS, result(duplicate_of="c/x.wav"), at=1.0)

    assert told.words == {"WHISPERD_EVENT": "completed", "WHISPERD_ID": job.id, "WHISPERD_NAME": job.name}
    assert told.paths == {
        "WHISPERD_ORIGINAL": "done/b/a\udcff.wav",
        "WHISPERD_STATUS_FILE": "outbox/b/a\udcff.wav.status.json",
        "WHISPERD_OUTPUT_TXT": "outbox/c/x.txt",
        "WHISPERD_OUTPUT_JSON": "outbox/c/x.json",
    }


def test_a_failed_job_is_told_with_its_error_code(job):
    """And no transcripts."""
    told = Notification.of(job, STATUS | {"status": "failed"}, FAILURE, at=1.0)

    assert (told.words["WHISPERD_EVENT"], told.words["WHISPERD_ERROR"]) == ("failed", FAILURE.code)
    assert told.paths["WHISPERD_ORIGINAL"] == "failed/b/a\udcff.wav"
    assert not any("OUTPUT" in name for name in told.paths)


def test_a_file_reads_as_it_was_written(job):
    """Names that are not UTF-8 included; the keys are those of earlier releases, whose files are delivered too."""
    told = Notification.of(job, STATUS, result(), at=1.5)

    assert Notification.decode(told.encode()) == told
    assert set(json.loads(told.encode())) == {"name", "at", "words", "paths", "sidecar"}


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"5", b"{}", b'{"name": 1, "at": 1, "words": {}, "paths": {}, "sidecar": {}}', b"[" * 100_000]
)
def test_a_damaged_file_is_none(data):
    """Whatever the disk has made of it."""
    assert Notification.decode(data) is None


def test_files_come_in_the_order_of_claims_once_their_jobs_have_ended(spool):
    """The end of a job that is still in `.work` may change."""
    first, second = spool.take("1.wav"), spool.take("2.wav")
    files = Undelivered(spool.layout)
    for job in (second, first):
        files.put(job.id, ["mail", "webhook-a"], Notification.of(job, STATUS, result(), at=1.0), not_for=())
    assert files.list() == []
    for job in (second, first):
        spool.store.fail(job, FAILURE)

    assert files.list() == [(job.id, channel) for job in (first, second) for channel in ("mail", "webhook-a")]
    files.drop(first.id, "mail")
    assert files.get(first.id, "mail") is None
    assert files.get(second.id, "mail").name == "a.wav"


def test_another_end_replaces_what_was_written_for_the_first(spool, job):
    """A crash lies between them."""
    files = Undelivered(spool.layout)
    files.put(job.id, ["on_completed"], Notification.of(job, STATUS, result(), at=1.0), not_for=["on_failed"])
    files.put(job.id, ["on_failed"], Notification.of(job, STATUS, FAILURE, at=2.0), not_for=["on_completed"])

    assert files.get(job.id, "on_completed") is None
    assert files.get(job.id, "on_failed").words["WHISPERD_ERROR"] == FAILURE.code
