"""The directory of a job: damage to a record is noticed, and an original and its ticket move together, over nothing."""

import json
import os

import pytest
from support.spool import FAILURE, SEEN_AT, Spool, result

from whisperd.core.errors import ClaimLost
from whisperd.core.job import Job, Signature
from whisperd.core.transcript import KnownVoices
from whisperd.intake.ticket import Tickets
from whisperd.settings import config, profiles
from whisperd.spool import job_directory
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
TEXT = "language: fr\n"
RESULT = result(
    quality={"mean_log_probability": -0.25},
    voices=KnownVoices({"Anna": 0.87}, ("inbox/_voices/Ben.wav: the file is empty",)),
)
KINDS = {
    "job": (job_directory.JOB, JOB, job_directory.load_job),
    "result": (job_directory.RESULT, RESULT, job_directory.load_result),
    "failure": (job_directory.FAILURE, FAILURE, job_directory.load_failure),
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
    job_directory.save(folder, name, value)

    assert load(folder) == value


@every_kind
def test_what_a_newer_release_added_is_dropped(tmp_path, folder, kind):
    """Its jobs survive a return to this one."""
    name, value, load = kind
    job_directory.save(folder, name, value)
    record = json.loads((tmp_path / name).read_text())
    (tmp_path / name).write_text(json.dumps(record | {"of_the_future": {"a": [1]}}))

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
    job_directory.save(folder, name, value)
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


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path)


def claim(spool, name="b/a.mp3", text=TEXT, between=lambda: None):
    """Upload with a ticket and claim both; something may happen after the ticket was read."""
    spool.upload(name)
    spool.upload(f"{name}.yaml", text.encode())
    tickets = Tickets(spool.layout.inbox).read(name)
    spec = profiles.resolve(config.validate({}, source="test"), name, tickets)
    between()
    return spool.store.claim(
        name, spool.seen(name), spec.output.formats, created_at=SEEN_AT, spec=spec, ticket=tickets[-1]
    )


def test_both_are_taken_and_both_end_in_the_same_room(spool):
    """Under names that belong together."""
    spool.finish(claim(spool))
    spool.store.fail(claim(spool), FAILURE)

    assert spool.files("inbox") == {}
    assert spool.files("done") == {"b/a.mp3": b"b/a.mp3", "b/a.mp3.yaml": TEXT.encode()}
    assert spool.files("failed") == {"b/a-2.mp3": b"b/a.mp3", "b/a-2.mp3.yaml": TEXT.encode()}
    assert spool.jobs() == set()


def test_a_ticket_in_another_case_is_named_after_its_recording(spool):
    """As Windows made them: in their last room, and back in the inbox, the two are seen to belong together."""
    spool.upload("A.MP3")
    spool.upload("a.mp3.YAML", TEXT.encode())
    tickets = Tickets(spool.layout.inbox)
    tickets.observe("a.mp3.YAML", spool.seen("a.mp3.YAML"), 0.0)
    (own,) = tickets.read("A.MP3")
    spool.store.claim("A.MP3", spool.seen("A.MP3"), ("txt",), created_at=SEEN_AT, ticket=own)
    (job,) = spool.restart().queued
    assert spool.files("inbox") == {}

    spool.store.fail(job, FAILURE)

    assert spool.files("failed") == {"A.MP3": b"A.MP3", "A.MP3.YAML": TEXT.encode()}


def test_a_ticket_left_in_failed_gives_the_next_job_another_name(spool):
    """A retry would follow the wrong one."""
    spool.put("failed/b/a.mp3.yaml", b"old")

    job = spool.store.fail(claim(spool), FAILURE)

    assert job.place == "b/a-2.mp3"
    assert spool.files("failed")["b/a.mp3.yaml"] == b"old"


def test_a_ticket_that_changed_after_it_was_read_stays(spool):
    """What is followed is what was read; what somebody wrote since is for the next upload."""
    path = spool.layout.inbox / "b/a.mp3.yaml"
    job = claim(spool, between=lambda: path.write_text("language: de\n"))
    spool.finish(job)

    assert job.spec.transcribe.language == "fr"
    assert path.read_text() == "language: de\n"
    assert set(spool.files("done")) == {"b/a.mp3"}


def test_an_upload_that_goes_away_leaves_its_ticket(spool):
    """Nothing was taken."""
    spool.upload("b/a.mp3")
    seen = spool.seen("b/a.mp3")
    spool.upload("b/a.mp3", b"something else")
    spool.upload("b/a.mp3.yaml", TEXT.encode())
    (own,) = Tickets(spool.layout.inbox).read("b/a.mp3")

    with pytest.raises(ClaimLost):
        spool.store.claim("b/a.mp3", seen, ("txt",), created_at=SEEN_AT, ticket=own)

    assert (spool.layout.inbox / "b/a.mp3.yaml").read_text() == TEXT


@pytest.mark.parametrize("taken", [(), ("b/a.mp3",), ("b/a.mp3.yaml",)], ids=["free", "upload", "ticket"])
def test_both_go_back_together(spool, taken):
    """Where one of the names is taken meanwhile, both get the next number."""
    job = claim(spool)
    for name in taken:
        spool.upload(name, b"a stranger's")

    name = spool.store.release(job)

    assert name == ("b/a-2.mp3" if taken else "b/a.mp3")
    assert spool.files("inbox")[name] == b"b/a.mp3"
    assert spool.files("inbox")[f"{name}.yaml"] == TEXT.encode()


def test_a_name_taken_in_the_last_moment_moves_both(spool, monkeypatch):
    """The ticket is moved first, and comes back when its original cannot follow."""
    job = claim(spool)
    move = job_directory.move

    def raced(source, name, target, new_name):
        if name == job.original and new_name == "a.mp3":
            spool.put("done/b/a.mp3")
        move(source, name, target, new_name)

    monkeypatch.setattr(job_directory, "move", raced)
    job = spool.finish(job)

    assert job.place == "b/a-2.mp3"
    assert spool.files("done") == {
        "b/a.mp3": b"a stranger's", "b/a-2.mp3": b"b/a.mp3", "b/a-2.mp3.yaml": TEXT.encode(),
    }  # fmt: skip


def test_an_end_cut_off_between_the_two_is_brought_to_its_end(spool, monkeypatch):
    """The ticket is in done/ already; the original follows it, and nothing is doubled."""
    job = claim(spool)
    result = spool.render(job, job.formats)
    move = job_directory.move

    def cut_off(source, name, target, new_name):
        if name == job.original:
            raise KeyboardInterrupt
        move(source, name, target, new_name)

    monkeypatch.setattr(job_directory, "move", cut_off)
    with pytest.raises(KeyboardInterrupt):
        spool.store.finish(job, result)
    monkeypatch.undo()
    ((found, result),) = spool.restart().to_finish
    spool.store.finish(found, result)

    assert found.spec == job.spec
    assert spool.files("done") == {"b/a.mp3": b"b/a.mp3", "b/a.mp3.yaml": TEXT.encode()}
    assert spool.jobs() == set()


def test_the_ticket_of_a_damaged_record_is_kept_with_its_original(spool):
    """Their names are lost, their bytes are not."""
    job = claim(spool)
    (spool.layout.job_directory(job.id) / "job.json").write_bytes(b"")
    ((found, failure),) = spool.restart().to_fail
    spool.store.fail(found, failure)

    assert set(spool.files("failed")) == {f"recovered-{job.id}.mp3", f"recovered-{job.id}.mp3.yaml"}


def test_an_order_is_the_same_after_a_restart(spool):
    """Every field, tuples included."""
    job = claim(spool, text="language: fr\nformats: [srt]\nspeakers: [A, B]\nvad.enabled: false\n")
    (found,) = spool.restart().queued

    assert found == job
    assert not found.spec.vad.enabled


# As version 0.1 wrote it: a field that comes later needs a default, or every waiting job fails after an update.
RECORD = {
    "id": "20260101T000000000000-aaaaaa", "name": "a.mp3", "place": "a.mp3", "original": "original.mp3",
    "signature": {"device": 1, "inode": 2, "size": 3, "mtime_ns": 4, "ctime_ns": 5, "blocks": 6},
    "created_at": "", "claimed_at": "", "attempts": 1, "started_at": None, "formats": ["srt"], "suspect": False,
    "order": {
        "model": "base", "channels": "mix", "speakers": [], "profile": "a/**", "tickets": ["a.mp3.yaml"],
        "changes": {"formats": ["srt"]},
        "transcribe": {
            "language": "fr", "task": "transcribe", "initial_prompt": None, "carry_initial_prompt": False,
            "condition_on_previous_text": True, "beam_size": None, "best_of": 5, "patience": None, "length_penalty": None,
            "temperature": [0.0, 0.2], "compression_ratio_threshold": 2.4, "logprob_threshold": -1.0,
            "no_speech_threshold": 0.6, "suppress_tokens": "-1", "word_timestamps": False,
            "hallucination_silence_threshold": None, "hotwords": None, "a_field_that_went_away": 1,
        },
        "output": {
            "formats": ["srt"], "max_line_width": None, "max_line_count": None, "max_words_per_line": None,
            "highlight_words": False,
        },
        "vad": {"threshold": 0.35, "min_speech_seconds": 0.1, "min_silence_seconds": 0.1, "speech_pad_seconds": 0.2},
    },
    "ticket": ".yaml",
}  # fmt: skip


@pytest.mark.parametrize("without", [(), ("order", "ticket")], ids=["0.1", "before orders"])
def test_a_record_of_an_earlier_release_is_read(tmp_path, without):
    """An update must not fail the jobs that wait."""
    record = {key: value for key, value in RECORD.items() if key not in without}
    (tmp_path / "job.json").write_text(json.dumps(record))
    with Folder(tmp_path) as folder:
        job = job_directory.load_job(folder)

    assert job.formats == ("srt",)
    if without:
        assert (job.spec, job.ticket) == (None, "")
    else:
        assert (job.spec.transcribe.temperature, job.spec.changes) == ((0.0, 0.2), {"formats": ("srt",)})
        assert job.spec.profile == "a/**"
