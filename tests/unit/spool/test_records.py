"""The private records of a job: what was written comes back, and damage is noticed, never believed."""

import os

import pytest
from support.spool import FAILURE, result

from whisperd.core.job import Job, Signature
from whisperd.spool import records
from whisperd.spool.durable import Folder

JOB = Job(
    "id",
    "ali\udcff/a\nb.mp3",
    "ali\udcff/a\nb-2.mp3",
    "original.mp3",
    Signature(1, 2, 3, 4, 5, 6),
    "2026-01-02T03:04:05.678Z",
    "2026-01-02T03:04:06.000Z",
    attempts=2,
    started_at="2026-01-02T03:04:07.000Z",
    formats=("txt", "json"),
    suspect=True,
)
RESULT = result(quality={"mean_log_probability": -0.25})
KINDS = {
    "job": (records.JOB, JOB, records.load_job),
    "result": (records.RESULT, RESULT, records.load_result),
    "failure": (records.FAILURE, FAILURE, records.load_failure),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


@pytest.fixture
def folder(tmp_path):
    with Folder(tmp_path) as folder:
        yield folder


@every_kind
def test_what_was_saved_is_loaded(folder, kind):
    """Names that are not UTF-8 included."""
    name, value, load = kind
    records.save(folder, name, value)

    assert load(folder) == value


@every_kind
def test_a_record_that_is_not_there_is_none(folder, kind):
    """A job without a result is simply not done."""
    _, _, load = kind

    assert load(folder) is None


@every_kind
def test_a_torn_record_is_none_wherever_it_was_cut(tmp_path, folder, kind):
    """A disk that lied about its cache leaves any part of it, zeros or nothing."""
    name, value, load = kind
    records.save(folder, name, value)
    whole = (tmp_path / name).read_bytes()

    for length in range(len(whole)):
        (tmp_path / name).write_bytes(whole[:length])
        assert load(folder) is None
        (tmp_path / name).write_bytes(whole[:length] + bytes(len(whole) - length))
        assert load(folder) is None


@every_kind
@pytest.mark.parametrize(
    "data",
    [b"[]", b"null", b"7", b"{}", b'{"unknown": 1}', b"\xff", b"[" * 100_000, b'{"signature": 7, "formats": 7}'],
    ids=["list", "null", "number", "empty", "unknown_field", "not_utf8", "deep", "wrong_types"],
)
def test_what_is_no_record_is_none(tmp_path, folder, kind, data):
    """Whatever it is, it must not keep the daemon from starting."""
    name, _, load = kind
    (tmp_path / name).write_bytes(data)

    assert load(folder) is None


@every_kind
def test_a_record_that_is_no_file_is_none(tmp_path, folder, kind):
    """A FIFO would let the daemon wait for ever."""
    name, _, load = kind
    os.mkfifo(tmp_path / name)

    assert load(folder) is None
