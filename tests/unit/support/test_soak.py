"""A soak that could not find anything would prove nothing: what it must notice, it notices."""

from __future__ import annotations

import random
import time

import pytest
from support.invariants import digest
from support.soak.book import Book
from support.soak.gauges import fitted
from support.soak.mix import HALVES, Mix, Noise, Speech
from support.soak.report import percentiles
from support.soak.ways import WAYS
from support.spool import Spool, result

from whisperd.core.job import Failure


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr("support.soak.book.SECOND_LOOK_SECONDS", 0.0)


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def uploads(kind, count=1):
    mix = Mix(random.Random(1), Noise())
    found = [upload for upload in (mix.next() for _ in range(300)) if upload.kind == kind]
    return found[:count]


def completed(spool, upload, text):
    """Bring an upload to its end with a text of one's choice."""
    job = spool.take(upload.name, upload.data)
    outputs = spool.layout.job_directory(job.id) / "outputs"
    outputs.mkdir()
    (outputs / "txt").write_text(f"{text}\n")
    spool.store.finish(job, result(("txt",), sha256=digest(upload.data)))


def problems(spool, *expected):
    book = Book(spool.layout.root, Noise())
    for upload in expected:
        book.note(upload, time.time())
    book.close_round()
    return book.problems


def test_a_right_end_is_no_problem(spool):
    """A transcript for a good recording, a reason for a bad one."""
    (good,), (bad,) = uploads("good"), uploads("playlist")
    completed(spool, good, good.text)
    spool.store.fail(spool.take(bad.name, bad.data), Failure("forbidden", "a playlist", ""))

    assert problems(spool, good, bad) == []


def test_a_wrong_text_is_found(spool):
    """That of another recording."""
    (good,) = uploads("good")
    completed(spool, good, "scripted 1.00 s sum 00000000")

    (problem,) = problems(spool, good)
    assert problem.startswith("wrong text")


def test_a_good_recording_that_failed_is_found(spool):
    """Faults are no excuse."""
    (good,) = uploads("good")
    spool.store.fail(spool.take(good.name, good.data), Failure("worker_died", "too often", ""))

    (problem,) = problems(spool, good)
    assert problem.startswith("wrong end")


def test_a_bad_file_that_failed_for_another_reason_is_found(spool):
    """Its sidecar would send the reader in the wrong direction."""
    (bad,) = uploads("truncated")
    spool.store.fail(spool.take(bad.name, bad.data), Failure("internal", "a bug", ""))

    (problem,) = problems(spool, bad)
    assert problem.endswith("failed as internal")


def test_a_lost_upload_is_found(spool):
    """`check_spool` is asked, too."""
    first, second = uploads("good", 2)
    completed(spool, first, first.text)

    (problem,) = problems(spool, first, second)
    assert problem.startswith("lost")


def test_all_is_cleared_away_after_a_round(spool):
    """The next one begins with an empty spool."""
    (good,) = uploads("good")
    completed(spool, good, good.text)
    problems(spool, good)

    assert spool.files("done") == spool.files("outbox") == {}


def test_the_same_seed_makes_the_same_uploads():
    """Or nobody could look for the cause."""
    first, second = ([Mix(random.Random(7), Noise()).next() for _ in range(30)] for _ in range(2))

    assert first == second


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_way_ends_with_the_whole_file(way, tmp_path, monkeypatch):
    """And leaves nothing else behind."""
    monkeypatch.setattr("support.soak.ways.PAUSE_SECONDS", 0.0)
    target = tmp_path / "inbox/new/a.wav"
    for _ in way(target, b"0123456789", tmp_path / "staging"):
        pass

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [target]
    assert target.read_bytes() == b"0123456789"


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_no_way_replaces_a_file(way, tmp_path):
    """It waits until the name is free."""
    target = tmp_path / "a.wav"
    target.write_bytes(b"first")
    steps = way(target, b"", tmp_path / "staging")
    for _ in range(10):
        next(steps)
    assert target.read_bytes() == b"first"

    target.unlink()
    assert list(steps) is not None
    assert target.read_bytes() == b""


def test_a_real_voice_tells_right_words_from_wrong_ones():
    """Whatever the punctuation; the words of another recording are wrong."""
    both = f"And so, my {HALVES[0].title()}ns: ask what you {HALVES[1]}."
    voice = Speech()

    assert voice.hears("01", both)
    assert not voice.hears("0", both)
    assert not voice.hears("11", both)
    assert not voice.hears("0", "")


def steps(slope, count=2000, *, start=0.0, begin=50_000.0):
    rng = random.Random(start)
    return [(start + n, begin + slope * n + rng.gauss(0, 300)) for n in range(0, count, 5)]


def test_a_leak_is_found_across_restarts():
    """Ten kilobytes a job, in processes that live for 400 jobs each."""
    lives = {pid: steps(10.0, 400, start=400 * pid, begin=50_000 - 1000 * pid) for pid in range(10)}

    line = fitted(lives, limit=5000.0)
    assert line.slope == pytest.approx(10_000, abs=3 * line.error)
    assert not line.is_flat


def test_noise_is_no_leak():
    """Nor is a start that is slow to settle."""
    warming = [(n, 20_000 + 150.0 * n) for n in range(0, 200, 5)]
    line = fitted({1: warming + steps(0.0)[40:], 2: steps(0.0)}, limit=1000.0)

    assert abs(line.slope) < 3 * line.error
    assert line.is_flat


def test_too_little_says_nothing():
    """No line is better than a wild one."""
    assert fitted({1: steps(0.0, 600), 2: steps(5.0, 150)}, limit=1.0) is None


def test_percentiles_are_by_nearest_rank():
    """The greatest is the greatest."""
    assert percentiles([float(n) for n in range(1, 201)]) == {"p50": 100.0, "p90": 180.0, "p99": 198.0, "max": 200.0}
    assert percentiles([]) == {}
