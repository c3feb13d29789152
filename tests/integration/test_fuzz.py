"""Damaged recordings by the thousand; `tests/bench/fuzz.py` goes on with it for as long as one wants."""

import random

import pytest
from support import fuzz
from support.daemon import Daemon, originals
from support.mutate import Guided, Hang, mutant

SEED = 20261122
PARSER_INPUTS = 20_000
FFMPEG_INPUTS = 150  # for each of two
DAEMON_INPUTS = 60


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """A second of each kind."""
    return fuzz.recordings(tmp_path_factory.mktemp("fuzz"), 1.0)


def test_parsers_answer_whatever_they_read(recordings):
    """Nothing but what they document is raised, no loop is without end, and what is read is bounded."""
    parsers = fuzz.Parsers(recordings, SEED)
    for _ in range(PARSER_INPUTS):
        name, data, error = parsers.step()
        assert error is None, f"{name}, seed {SEED}: {error!r} with {len(data)} bytes: {data[:300]!r}"

    assert parsers.tried.total() == PARSER_INPUTS
    assert min(parsers.tried.values()) >= 1000


def test_decoding_ends_whatever_is_decoded(recordings, ffmpeg_path, tmp_path):
    """With samples or a JobError, in time; no process, no descriptor and no file is left of it."""
    decoding = fuzz.Decoding(recordings, ffmpeg_path, tmp_path, SEED)
    for number in range(FFMPEG_INPUTS):
        data, error = decoding.step()
        assert error is None, f"input {number}, seed {SEED}: {error!r} with {len(data)} bytes: {data[:300]!r}"

    assert decoding.outcomes["samples"] > FFMPEG_INPUTS / 10
    assert decoding.outcomes["not_media"] > FFMPEG_INPUTS / 10


def test_a_daemon_outlives_them(recordings, tmp_path):
    """Each upload is in done/ or in failed/ in the end, as it was, and the worker is the one that was there at first."""
    rng = random.Random(SEED)
    damaged = {mutant(recordings, rng) for _ in range(DAEMON_INPUTS)} - {b""}
    with Daemon(tmp_path / "spool", {"pool": {"max_attempts": 1}}) as daemon:
        daemon.wait_ready()
        workers = daemon.workers()
        for number, data in enumerate(damaged):
            (daemon.inbox / f"{number}.mp3").write_bytes(data)

        def ended():
            places = originals(daemon.root)
            return len(places["done"]) + len(places["failed"]) == len(damaged)

        daemon.wait(ended, within_seconds=120.0, what=f"the end of all, seed {SEED}")
        daemon.wait(lambda: not list(daemon.work.glob("[!.]*")), what="an empty .work")

        assert daemon.workers() == workers
        assert daemon.errors() == []
        documents = [daemon.sidecar(f"{number}.mp3") for number in range(len(damaged))]
        assert {document["status"] for document in documents} == {"completed", "failed"}
        assert not [d["error"] for d in documents if d["error"] and d["error"]["code"] in {"internal", "worker_died"}]
        assert daemon.stop() == 0


def test_the_fuzzer_finds_what_is_hidden():
    """A byte behind two others, a loop that does not end: what it is for."""

    def target(data):
        if data[8:9] == b"\x7f":
            if data[10:11] == b"\x80":  # noqa: SIM102  # each on a line, for the trace to see
                if data[12:13] == b"\x0c":
                    raise LookupError
            while data[4:5] == b"\xff":
                pass

    guided = Guided(target, [bytes(24)], (__file__,), random.Random(SEED))
    found = set()
    for _ in range(PARSER_INPUTS):
        _, error = guided.step()
        found |= {type(error)} - {type(None)}
        if len(found) == 2:  # each turn of the endless loop takes its time
            break

    assert found == {LookupError, Hang}
