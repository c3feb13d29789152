"""The second look at an original after the run."""

import hashlib
import os

import pytest
from support.daemon import tone

from whisperd.core.job import Job, Signature
from whisperd.intake.recheck import OriginalState, recheck


@pytest.fixture
def original(tmp_path):
    return tone(tmp_path / "original.wav")


@pytest.fixture
def look(original):
    job = Job("id", "a.wav", "a.wav", original.name, Signature.of(original.stat()), "", "")
    sha256 = hashlib.sha256(original.read_bytes()).hexdigest()
    return lambda: last(recheck(original.parent, job, sha256))


def last(steps):
    return list(steps)[-1]


def flipped(path):
    data = path.read_bytes()
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("act", "state"),
    [
        pytest.param(lambda path: None, OriginalState.SAME, id="nothing"),
        pytest.param(lambda path: path.chmod(0o600), OriginalState.SAME, id="chmod"),
        pytest.param(lambda path: os.utime(path, (1, 1)), OriginalState.SAME, id="an old mtime set"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()), OriginalState.SAME, id="the same written again"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes() + b"x"), OriginalState.CHANGED, id="longer"),
        pytest.param(lambda path: path.write_bytes(flipped(path)), OriginalState.CHANGED, id="as long, other content"),
    ],
)
def test_only_content_counts(original, look, act, state):
    """An hour of work is not thrown away for a chmod, nor kept for a file that it is not about."""
    act(original)

    assert look() is state


def test_a_changed_file_with_its_times_set_back_is_changed(original, look):
    """As Explorer does at the end of a copy; ctime alone tells."""
    before = original.stat()
    original.write_bytes(flipped(original))
    os.utime(original, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert look() is OriginalState.CHANGED


def test_a_writer_that_has_not_written_yet_is_seen(original, look):
    """The result waits for it."""
    with original.open("r+b"):
        assert look() is OriginalState.WRITER
    assert look() is OriginalState.SAME


def test_a_writer_that_goes_on_appending_does_not_keep_the_reader(original, monkeypatch):
    """The supervisor reads here: it must not read what comes while it does."""
    job = Job("id", "a.wav", "a.wav", original.name, Signature.of(original.stat()), "", "")
    sha256 = hashlib.sha256(original.read_bytes()).hexdigest()
    os.utime(original, (1, 1))
    pread, reads = os.pread, []

    def appended(fd, length, at):
        reads.append(at)
        assert len(reads) < 100
        with original.open("ab") as file:
            file.write(bytes(100_000))
        return pread(fd, length, at)

    monkeypatch.setattr(os, "pread", appended)

    assert last(recheck(original.parent, job, sha256)) is OriginalState.CHANGED
    assert len(reads) == 1


def test_what_is_written_behind_the_reader_is_not_missed(original, monkeypatch):
    """Reading takes many turns of the loop: a change to what was read already must not count as the same."""
    job = Job("id", "a.wav", "a.wav", original.name, Signature.of(original.stat()), "", "")
    sha256 = hashlib.sha256(original.read_bytes()).hexdigest()
    monkeypatch.setattr("whisperd.intake.recheck.BLOCK_BYTES", 1000)
    os.utime(original, (1, 1))
    steps = recheck(original.parent, job, sha256)
    assert next(steps) is None
    data = original.read_bytes()
    original.write_bytes(b"XIFF" + data[4:])

    assert last(steps) is OriginalState.WRITER
    assert last(recheck(original.parent, job, sha256)) is OriginalState.CHANGED
