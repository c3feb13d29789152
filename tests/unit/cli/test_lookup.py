"""Which upload a name on the command line means, and what `whisperd status NAME` says of it."""

import json

import pytest
from support.spool import FAILURE, Spool

from whisperd import cli
from whisperd.core.job import Failure, Phase, Progress
from whisperd.settings import profiles
from whisperd.settings.config import validate

CANCELLED = Failure("cancelled", "somebody cancelled it")


@pytest.fixture
def spool(tmp_path):
    """One upload in each state, one of which is there twice."""
    spool = Spool(tmp_path / "spool")
    spool.finish(spool.store.start(spool.take("alice/done.mp3")))
    spool.finish(spool.take("bob/done.mp3"))
    spool.store.fail(spool.take("alice/failed.mp3"), FAILURE)
    spool.store.fail(spool.take("alice/cancelled.mp3"), CANCELLED)
    spool.store.show(spool.take("queued.mp3"), progress=Progress(queue_position=3))
    running = spool.store.start(spool.take("running.mp3")).after(FAILURE, counted=True)
    spool.store.show(spool.store.record(running), progress=Progress(Phase.TRANSCRIBING, 43.0, 100.0, speed=12.3))
    spool.upload("alice/waiting.mp3")
    spool.store.status_files.explain("alice/waiting.mp3", 8, "still open for writing")
    return spool


@pytest.fixture
def status(spool, capsys):
    """Run the command; what it printed, and its exit code."""

    def run(*arguments, command="status"):
        code = cli.main([command, "--root", str(spool.layout.root), *arguments])
        said = capsys.readouterr()
        return said.out + said.err, code

    return run


@pytest.fixture
def about(status):
    """What it says of one upload to programs."""
    return lambda name: json.loads(status(name, "--json")[0])


@pytest.mark.parametrize(
    ("name", "state", "path"),
    [
        ("alice/waiting.mp3", "waiting", "inbox/alice/waiting.mp3"),
        ("waiting.mp3", "waiting", "inbox/alice/waiting.mp3"),
        ("inbox/alice/waiting.mp3", "waiting", "inbox/alice/waiting.mp3"),
        ("queued.mp3", "queued", None),
        ("running.mp3", "running", None),
        ("bob/done.mp3", "completed", "done/bob/done.mp3"),
        ("outbox/bob/done.mp3.status.json", "completed", "done/bob/done.mp3"),
        ("failed/alice/failed.mp3", "failed", "failed/alice/failed.mp3"),
        ("cancelled.mp3", "cancelled", "failed/alice/cancelled.mp3"),
    ],
)
def test_each_state_and_each_way_to_name_an_upload(about, status, name, state, path):
    """With or without its folder; the original is where it is said to be."""
    said = about(name)

    assert (said["state"], said["path"]) == (state, path or f".work/{said['id']}")
    assert status(name)[0].startswith(f"{said['name']}: {'in the inbox' if state == 'waiting' else state}\n")


def test_a_full_path_and_an_id_are_names_too(about, spool):
    """The id, as it is in status files and the journal, also after the end of the job."""
    assert about(str(spool.layout.inbox / "alice/waiting.mp3"))["name"] == "alice/waiting.mp3"
    for name in ("running.mp3", "bob/done.mp3"):
        assert about(about(name)["id"])["name"] == name


def test_why_each_waits_and_failed(about, status):
    """The reason, the position, the earlier attempt, the error with its remedy."""
    assert about("waiting.mp3")["reason"] == "still open for writing"
    assert "no whisperd is running in this spool" in about("queued.mp3")["reason"]
    assert [(each["code"], each["counted"]) for each in about("running.mp3")["failed_attempts"]] == [("no_audio", True)]
    assert "there is no sound in it (no_audio) -> send another file" in status("running.mp3")[0]
    assert about("failed.mp3")["error"] == {"code": FAILURE.code, "message": FAILURE.message, "hint": FAILURE.hint}
    assert about("bob/done.mp3")["outputs"] == {"txt": "outbox/bob/done.txt", "json": "outbox/bob/done.json"}


def test_with_a_daemon_a_queued_job_has_its_position(about, spool):
    """Nothing else keeps it waiting."""
    with spool.layout.lock():
        assert about("queued.mp3")["reason"] == "3. in the queue"


def test_several_of_one_name_are_listed_with_names_that_are_no_longer_ambiguous(about, status):
    """Each of them can be copied."""
    said, code = status("done.mp3")

    assert code == 1
    listed = [line.split(",")[0].strip() for line in said.splitlines()[1:]]
    assert listed == ["done/alice/done.mp3", "done/bob/done.mp3"]
    assert [about(name)["name"] for name in listed] == ["alice/done.mp3", "bob/done.mp3"]


def test_a_second_upload_of_a_name_is_told_from_the_first(about, status, spool):
    """One completed as `done.mp3`, one that runs as `done-2.mp3`, one in the inbox."""
    second = spool.store.start(spool.take("bob/done.mp3"))
    spool.store.show(second, progress=Progress(Phase.DECODING))
    spool.upload("bob/done.mp3")
    said, _ = status("bob/done.mp3")

    for path in ("inbox/bob/done.mp3", ".work/bob/done-2.mp3", "done/bob/done.mp3"):
        assert path in said
        assert about(path)["name"] == "bob/done.mp3"
    assert about("bob/done-2.mp3")["id"] == second.id


def test_what_does_not_exist_names_what_was_meant(status):
    """Exit 1, as with other commands."""
    said, code = status("alice/watiing.mp3")

    assert (code, "did you mean alice/waiting.mp3?" in said) == (1, True)


def test_options_have_their_origin_also_after_the_ticket_has_gone(about, spool):
    """Before the claim as it would be now, and then as it was recorded."""
    (spool.layout.inbox / "alice/waiting.mp3.yaml").write_text("# mine\nlanguage: fr\n")
    before = about("waiting.mp3")["options"]
    values = {"profiles": {"**": {"beam_size": 2}}}
    spec = profiles.resolve(validate(values, source="test"), "bob/a.mp3")
    spool.store.fail(spool.take("bob/a.mp3").evolve(spec=spec), FAILURE)

    assert before == [
        {"key": "transcription.language", "value": "fr", "origin": "ticket alice/waiting.mp3.yaml, line 2, column 1"}
    ]
    assert about("bob/a.mp3")["options"] == [{"key": "transcription.beam_size", "value": 2, "origin": "profile **"}]


def test_a_bad_ticket_is_told_before_the_recording_fails(about, spool):
    """Its owner can still correct it."""
    (spool.layout.inbox / "alice/waiting.mp3.yaml").write_text("langage: fr\n")

    assert "langage: unknown key (did you mean language?)" in about("waiting.mp3")["error"]["message"]


def test_a_job_whose_original_was_removed_is_still_found(about, spool):
    """By its status file; a failed one that is back in the inbox is not there twice."""
    (spool.layout.done / "bob/done.mp3").unlink()
    (spool.layout.failed / "alice/failed.mp3").rename(spool.layout.inbox / "alice/failed.mp3")

    assert (about("bob/done.mp3")["state"], about("bob/done.mp3")["path"]) == ("completed", None)
    assert about("failed.mp3")["state"] == "waiting"


@pytest.mark.parametrize(
    "field", ["reason", "options", "outputs", "failed_attempts", "error", "name", "phase", "progress"]
)
@pytest.mark.parametrize(
    "value", ["\x1b]0;x\x07\u202e", ["\x1b[2J"], {"\x1b[2J": "\x1b[2J"}, [{"at": "\x9b", "code": []}], 7]
)
def test_a_forged_status_file_neither_steers_a_terminal_nor_breaks_the_command(status, spool, field, value):
    """People can write into the outbox."""
    path = spool.layout.outbox / "bob/done.mp3.status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    said, code = status("bob/done.mp3")
    machine, _ = status("bob/done.mp3", "--json")

    assert code == 0
    assert all(
        char.isprintable() or char == "\n" for char in said + json.dumps(json.loads(machine), ensure_ascii=False)
    )


def test_the_last_completed_and_the_cancelled_are_listed(status):
    """A cancelled one has its own word and number; no name is broken in a pipe, and no line is filled with spaces."""
    said, _ = status()
    lines = {line.split()[0]: line for line in said.splitlines()}

    assert "2 done, 1 failed, 1 cancelled" in said
    assert " completed " in lines["bob/done.mp3"]
    assert " cancelled " in lines["alice/cancelled.mp3"]
    assert not any(line.endswith(" ") for line in said.splitlines())


def test_a_name_is_whole_in_a_pipe_however_long(status, spool):
    """A script can read it."""
    name = "x" * 240 + ".mp3"
    spool.finish(spool.take(name))

    assert f"{name} " in status()[0]


def test_the_lines_of_a_file_about_one_upload(status, spool):
    """For a daemon that is no service: those that begin with the name or have the id."""
    log = spool.put(
        "log", b"10:00:00 INFO    bob/done.mp3: claimed\n10:00:01 INFO    my bob/done.mp3: x\n10:00:02 INFO    ready\n"
    )
    log.write_text(log.read_text().replace("my bob", "my-bob"))

    assert status("bob/done.mp3", "--file", str(log), command="logs") == ("10:00:00 INFO    bob/done.mp3: claimed\n", 0)
    nothing, code = status("queued.mp3", "--file", str(log), command="logs")
    assert (code, "has nothing about" in nothing) == (1, True)


def test_an_upload_that_waits_has_no_log_of_its_own_yet(status):
    """What to do instead is said."""
    said, code = status("waiting.mp3", command="logs")

    assert (code, "whisperd status inbox/alice/waiting.mp3" in said) == (1, True)


def test_without_a_journal_it_says_what_to_do(status, monkeypatch):
    """As in a container."""
    monkeypatch.setattr("whisperd.cli.logs.JOURNAL", "/nowhere")
    said, code = status("queued.mp3", command="logs")

    assert (code, "whisperd run 2>>FILE" in said) == (1, True)
