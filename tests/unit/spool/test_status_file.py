"""The status JSON: one schema in every state, readable by programs and by people, safe to print."""

import json
import os

import pytest
from support.spool import FAILURE, FORMATS, SEEN_AT, Spool, result

from whisperd.core.job import Failure, Job, Phase, Progress, Signature
from whisperd.core.transcript import KnownVoices
from whisperd.spool import status_file

NOW = "2026-01-02T03:05:00.000Z"
HOSTILE = "ali\udcff/\x1b[2Ja\nb.mp3"


def job(name="alice/a.mp3", **changes):
    return Job(
        "20260102T030405-abc",
        name,
        changes.pop("place", name),
        "original.mp3",
        Signature(1, 2, 1234, 4, 5, 6),
        SEEN_AT,
        "2026-01-02T03:04:06.000Z",
        formats=FORMATS,
        **changes,
    )


RUNNING = Progress(Phase.TRANSCRIBING, 5.0, 20.0, 4.0, 3.75)
STATES = {
    "uploading": status_file.of_upload("alice/a.mp3", 1234, "still changing", now=NOW),
    "queued": status_file.of_job(job(), now=NOW, progress=Progress(queue_position=3)),
    "decoding": status_file.of_job(job(attempts=1, started_at=NOW), now=NOW, progress=Progress(Phase.DECODING)),
    "transcribing": status_file.of_job(job(attempts=1, started_at=NOW), now=NOW, progress=RUNNING),
    "completed": status_file.of_job(job(attempts=1, started_at=NOW), now=NOW, result=result()),
    "duplicate": status_file.of_job(job(), now=NOW, result=result(duplicate_of="bob/b-2.mp3", processing_seconds=0.0)),
    "failed": status_file.of_job(job(attempts=1, started_at=NOW), now=NOW, failure=FAILURE),
}
every_state = pytest.mark.parametrize("document", STATES.values(), ids=STATES.keys())


@every_state
def test_every_field_is_there_in_every_state(document):
    """A program need not ask whether a key exists: what is not known is null."""
    assert sorted(document) == sorted(status_file.FIELDS)
    assert document["schema"] == 1


@every_state
def test_each_field_has_one_type_or_is_null(document):
    """Listed here once more, as a reader of the schema would."""
    text = ["id", "name", "source", "status", "phase", "reason", "profile", "model", "engine", "device", "language"]
    text += [
        "original",
        "duplicate_of",
        "sha256",
        "created_at",
        "claimed_at",
        "started_at",
        "finished_at",
        "updated_at",
    ]
    real = ["progress", "duration_seconds", "processed_seconds", "speed", "eta_seconds", "language_probability"]
    whole = ["schema", "queue_position", "attempts", "size_bytes"]
    mappings = ["options", "origins", "outputs", "digests", "error", "quality", "voices"]
    lists = ["tickets", "corrections", "languages", "failed_attempts"]
    read = json.loads(status_file.encode(document))

    assert sorted([*text, *real, *whole, *mappings, *lists]) == sorted(status_file.FIELDS)
    for fields, kind in ((text, str), (real, float | int), (whole, int), (mappings, dict), (lists, list)):
        assert all(read[field] is None or isinstance(read[field], kind) for field in fields)


@pytest.mark.parametrize(
    ("state", "status", "phase", "progress"),
    [
        ("uploading", "pending", "uploading", 0.0),
        ("queued", "pending", "queued", 0.0),
        ("decoding", "in_progress", "decoding", 0.0),
        ("transcribing", "in_progress", "transcribing", 25.0),
        ("completed", "completed", "ended", 100.0),
        ("duplicate", "completed", "ended", 100.0),
        ("failed", "failed", "ended", 0.0),
    ],
)
def test_status_phase_and_progress_of_each_state(state, status, phase, progress):
    """`status` is one of four words, `phase` says more."""
    document = STATES[state]

    assert (document["status"], document["phase"], document["progress"]) == (status, phase, progress)


def test_a_waiting_upload_says_why_it_waits():
    """It has no id yet: it is no job."""
    document = STATES["uploading"]

    assert (document["id"], document["reason"], document["attempts"]) == (None, "still changing", 0)
    assert (document["name"], document["source"]) == ("alice/a.mp3", "inbox/alice/a.mp3")


def test_a_running_job_says_how_far_and_how_fast_it_is():
    """In seconds of audio."""
    document = STATES["transcribing"]

    assert (document["processed_seconds"], document["duration_seconds"]) == (5.0, 20.0)
    assert (document["speed"], document["eta_seconds"]) == (4.0, 3.75)
    assert (document["started_at"], document["finished_at"], document["original"]) == (NOW, None, None)


def test_a_completed_job_says_where_everything_is():
    """Paths are relative to the root, and what was measured is there."""
    document = STATES["completed"]

    assert document["outputs"] == {"txt": "outbox/alice/a.txt", "json": "outbox/alice/a.json"}
    assert document["original"] == "done/alice/a.mp3"
    assert (document["sha256"], document["size_bytes"]) == ("0" * 64, 1234)
    assert (document["duration_seconds"], document["speed"]) == (12.5, 5.0)
    assert (document["engine"], document["model"], document["device"]) == ("scripted", "base", "cpu")
    assert (document["language"], document["language_probability"]) == ("de", 0.9)
    assert document["languages"] == [{"from": 0.0, "to": 12.0, "language": "de"}]
    assert (document["created_at"], document["finished_at"]) == (SEEN_AT, NOW)
    assert document["error"] is None


def test_a_completed_job_says_whom_it_knew_and_which_samples_are_of_no_use():
    """Null where there were no samples."""
    voices = KnownVoices({"Anna": 0.87}, ("inbox/_voices/Ben.wav: the file is empty",))
    document = status_file.of_job(job(), now=NOW, result=result(voices=voices))

    assert json.loads(status_file.encode(document))["voices"] == {
        "recognized": {"Anna": 0.87},
        "unusable": ["inbox/_voices/Ben.wav: the file is empty"],
    }
    assert STATES["completed"]["voices"] is None


def test_a_failed_job_says_why_and_what_to_do():
    """And where the original is, so that it can be tried again."""
    document = STATES["failed"]

    assert document["error"] == {
        "code": "no_audio",
        "message": "there is no sound in it",
        "hint": "send another file",
        "retryable": False,
        "stage": "decoding",
    }
    assert (document["original"], document["outputs"], document["finished_at"]) == ("failed/alice/a.mp3", {}, NOW)


def test_a_job_that_got_a_suffix_names_its_upload_and_its_place():
    """`name` is what was uploaded, the paths are where things are."""
    document = status_file.of_job(job(place="alice/a-2.mp3"), now=NOW, result=result())

    assert (document["name"], document["source"]) == ("alice/a.mp3", "inbox/alice/a.mp3")
    assert document["outputs"]["txt"] == "outbox/alice/a-2.txt"
    assert document["original"] == "done/alice/a-2.mp3"


def test_no_name_in_a_status_file_can_act_on_a_terminal():
    """`cat` of a status file is safe whatever was uploaded."""
    data = b"".join(
        status_file.encode(document)
        for document in (
            status_file.of_upload(HOSTILE, 1, "x", now=NOW),
            status_file.of_job(job(HOSTILE), now=NOW, result=result()),
            status_file.of_job(job(HOSTILE), now=NOW, failure=FAILURE),
        )
    )

    assert b"\x1b" not in data
    assert json.loads(status_file.encode(status_file.of_upload(HOSTILE, 1, "", now=NOW)))["name"] == (
        "ali\\xff/\\x1b[2Ja\\nb.mp3"
    )


def test_text_is_not_escaped_and_the_file_ends_with_a_newline():
    """People read it too."""
    data = status_file.encode(status_file.of_upload("Gespräch 会议.mp3", 1, "", now=NOW))

    assert "Gespräch 会议.mp3".encode() in data
    assert data.endswith(b"}\n")


def test_a_message_with_bytes_that_are_not_utf8_is_still_json():
    """An exception may name a file that nobody escaped."""
    failure = Failure("internal", "cannot read a\udcff.mp3")
    data = status_file.encode(status_file.of_job(job(), now=NOW, failure=failure))

    assert json.loads(data.decode("utf-8"))["error"]["message"] == "cannot read a\udcff.mp3"


@every_state
def test_what_was_encoded_is_decoded(document):
    """The status words come back as text."""
    assert status_file.decode(status_file.encode(document)) == json.loads(status_file.encode(document))


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"{}", b'{"schema": 2}', b"\xff\xfe", b"[" * 100_000, b'"schema"'],
    ids=["empty", "torn", "list", "null", "no_schema", "other_schema", "not_utf8", "deep", "text"],
)
def test_what_is_no_status_file_of_ours_is_told_from_one(data):
    """People can write into the outbox."""
    assert status_file.decode(data) is None


# --- in the outbox ---


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


ODD_NAMES = ["a.wav", "alice/a.wav", "b\udcff\udcfe.wav", "new\nline.wav", "back\\slash.wav", "x" * 251 + ".wav"]


def stale(spool):
    return [place for place in spool.store.status_files.stale_explanations() if place is not None]


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_an_explanation_is_written_and_removed(spool, name):
    """Whatever the name is."""
    spool.upload(name)
    place = spool.store.status_files.explain(name, 7, "still open for writing")

    document = spool.sidecar(name)
    assert (document["status"], document["phase"], document["reason"]) == (
        "pending",
        "uploading",
        "still open for writing",
    )
    assert (document["id"], document["size_bytes"]) == (None, 7)
    spool.store.status_files.unexplain(place)
    with pytest.raises(FileNotFoundError):
        spool.sidecar(name)


def test_an_explanation_beside_an_earlier_upload_of_that_name_gets_a_number(spool):
    """The status file of a job is never replaced by an explanation."""
    job = spool.finish(spool.take("a.wav"))
    spool.upload("a.wav", b"another")

    assert spool.store.status_files.explain("a.wav", 7, "empty") == "a-2.wav"
    assert spool.sidecar("a.wav")["id"] == job.id
    assert spool.claim("a.wav").place == "a-2.wav"


def test_two_files_never_share_an_explanation(spool):
    """`a-2.wav` is the name of an upload, too."""
    spool.finish(spool.take("a.wav"))
    first = spool.store.status_files.explain("a.wav", 1, "one")
    second = spool.store.status_files.explain("a-2.wav", 2, "two")

    assert (first, second) == ("a-2.wav", "a-2-2.wav")
    assert spool.sidecar("a-2.wav")["reason"] == "one"


def test_an_explanation_is_not_resurrected_after_the_claim(spool):
    """Neither by writing one late, nor by removing one late."""
    spool.upload("a.wav")
    place = spool.store.status_files.explain("a.wav", 7, "empty")
    job = spool.claim("a.wav")
    spool.store.show(job)
    spool.store.status_files.unexplain(place)
    spool.store.status_files.explain("a.wav", 7, "empty")

    assert spool.sidecar("a.wav")["id"] == job.id


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_an_explanation_is_stale_once_its_file_is_gone(spool, name):
    """As a daemon that died leaves it; as long as the file is there the explanation stays."""
    path = spool.upload(name)
    spool.store.status_files.explain(name, 7, "empty")
    assert stale(spool) == []

    path.unlink()
    (place,) = stale(spool)
    spool.store.status_files.unexplain(place)
    assert stale(spool) == []


def test_the_status_file_of_a_job_is_never_stale(spool):
    """Whether it runs, failed or is done."""
    spool.finish(spool.take("a.wav"))
    spool.store.show(spool.take("b.wav"))

    assert stale(spool) == []


def test_a_job_never_writes_over_the_status_file_of_another(spool):
    """Nor over a file that is no status file."""
    done = spool.finish(spool.take("a.mp3"))
    other = spool.take("b.mp3").evolve(place=done.place)

    with pytest.raises(FileExistsError):
        spool.store.show(other, progress=Progress())

    assert spool.sidecar("a.mp3")["id"] == done.id


def test_a_file_that_appears_while_a_status_file_is_written_is_not_overwritten(spool, monkeypatch):
    """The look and the write are two steps, with a sync between them."""
    job = spool.take("a.mp3")
    real = os.fsync

    def fsync(fd):
        spool.put("outbox/a.mp3.status.json")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)

    with pytest.raises(FileExistsError):
        spool.store.show(job, progress=Progress(), sync=True)

    assert (spool.layout.outbox / "a.mp3.status.json").read_bytes() == b"a stranger's"


@pytest.mark.parametrize("document", [{"schema": 1}, {"schema": 1, "id": [], "status": {}, "original": []}], ids=repr)
def test_json_that_looks_like_a_status_file_is_a_strangers(spool, document):
    """It must neither be overwritten nor end the daemon."""
    content = json.dumps(document).encode()
    spool.put("outbox/a.mp3.status.json", content)

    job = spool.finish(spool.take("a.mp3"))

    assert job.place == "a-2.mp3"
    assert (spool.layout.outbox / "a.mp3.status.json").read_bytes() == content


def test_a_waiting_upload_is_explained_until_it_is_taken(spool):
    """The explanation turns into the status file of the job."""
    spool.upload("b/a.mp3")
    spool.store.status_files.explain("b/a.mp3", 7, "permission denied")
    note = spool.sidecar("b/a.mp3")
    job = spool.claim("b/a.mp3")
    spool.store.show(job, progress=Progress())

    assert (note["status"], note["reason"], note["id"]) == ("pending", "permission denied", None)
    assert (spool.sidecar("b/a.mp3")["id"], spool.sidecar("b/a.mp3")["reason"]) == (job.id, None)


def test_the_explanation_of_an_upload_that_went_away_is_removed(spool):
    """Without one there is nothing to do."""
    spool.store.status_files.explain("b/a.mp3", 7, "permission denied")
    spool.store.status_files.unexplain("b/a.mp3")
    spool.store.status_files.unexplain("b/a.mp3")
    spool.store.status_files.unexplain("c/a.mp3")

    assert list((spool.layout.outbox / "b").iterdir()) == []


def test_an_explanation_neither_replaces_nor_removes_the_status_file_of_a_job(spool):
    """A second file of the name of a finished one may be unreadable."""
    job = spool.finish(spool.take("a.mp3"))
    spool.store.status_files.explain("a.mp3", 7, "permission denied")
    spool.store.status_files.unexplain("a.mp3")

    assert spool.sidecar("a.mp3")["id"] == job.id


def test_a_folder_of_the_outbox_that_is_a_symlink_is_not_written_through(spool):
    """Neither by an explanation nor by a job."""
    (spool.layout.outbox / "b").symlink_to(spool.layout.inbox)
    with pytest.raises(OSError):
        spool.store.status_files.explain("b/a.mp3", 7, "x")
    job = spool.finish(spool.take("b/a.mp3"))

    assert job.place == "b-2/a.mp3"
    assert spool.files("inbox") == {}


def found(spool):
    """The places of the completed jobs."""
    return [job.place for job in status_file.find_all_completed(spool.layout) if job]


def test_a_completed_job_is_found_with_its_result(spool):
    """A failed or running one is not."""
    spool.finish(spool.take("a/b.wav"))
    spool.store.fail(spool.take("failed.wav"), FAILURE)
    spool.store.show(spool.take("running.wav"))

    assert found(spool) == ["a/b.wav"]
    job = status_file.find_completed(spool.layout, "a/b.wav")
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
    spool.store.finish(spool.take("b.wav"), status_file.find_completed(spool.layout, "a.wav").result)

    assert found(spool) == ["a.wav"]


@pytest.mark.parametrize("size", ["Infinity", "-Infinity", "NaN", "1e400", '"many"', "[]"])
def test_a_forged_status_file_with_an_odd_size_is_not_found(spool, size):
    """The daemon reads all of them at its start where it skips what it has transcribed before."""
    spool.finish(spool.take("a.wav"))
    path = spool.layout.outbox / "a.wav.status.json"
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps(document | {"size_bytes": 0}).replace('"size_bytes": 0', f'"size_bytes": {size}'))

    assert found(spool) == []
