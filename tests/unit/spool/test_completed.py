"""Completed jobs are found by their status files, as long as all that these name exists."""

import json

import pytest
from support.spool import FAILURE, Spool

from whisperd.spool import completed


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def found(spool):
    """The places of the completed jobs."""
    return [job.place for job in completed.find_all(spool.layout) if job]


def test_a_completed_job_is_found_with_its_result(spool):
    """A failed or running one is not."""
    spool.finish(spool.take("a/b.wav"))
    spool.store.fail(spool.take("failed.wav"), FAILURE)
    spool.store.show(spool.take("running.wav"))

    assert found(spool) == ["a/b.wav"]
    job = completed.find(spool.layout, "a/b.wav")
    assert (job.size_bytes, job.result.outputs, job.result.duplicate_of) == (7, ("txt", "json"), "a/b.wav")


@pytest.mark.parametrize("path", ["a.txt", "a.json", "a.wav.status.json"])
def test_a_job_of_which_something_was_taken_away_is_not_found(spool, path):
    """Nobody can be pointed to it."""
    spool.finish(spool.take("a.wav"))
    (spool.layout.outbox / path).unlink()

    assert found(spool) == []


def test_a_duplicate_is_not_found(spool):
    """The job that it points to is."""
    spool.finish(spool.take("a.wav"))
    spool.store.finish(spool.take("b.wav"), completed.find(spool.layout, "a.wav").result)

    assert found(spool) == ["a.wav"]


@pytest.mark.parametrize("size", ["Infinity", "-Infinity", "NaN", "1e400", '"many"', "[]"])
def test_a_forged_status_file_with_an_odd_size_is_not_found(spool, size):
    """The daemon reads all of them at its start where it skips what it has transcribed before."""
    spool.finish(spool.take("a.wav"))
    path = spool.layout.outbox / "a.wav.status.json"
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps(document | {"size_bytes": 0}).replace('"size_bytes": 0', f'"size_bytes": {size}'))

    assert found(spool) == []
