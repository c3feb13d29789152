"""Publishing what was rendered again: old files or new ones after any crash, and nothing of a user's is ever replaced."""

import contextlib
import hashlib
import itertools
import json
import os

import pytest
from support.spool import FORMATS, Spool

from whisperd.core import replacements
from whisperd.core.correction import Correction
from whisperd.core.errors import CorrectionRefused
from whisperd.core.job import Signature, Ticket
from whisperd.core.transcript import Segment, Transcript
from whisperd.settings import config
from whisperd.spool import corrections, job_directory, names, publish, status_file
from whisperd.spool.corrections import Corrections
from whisperd.worker import rerender

NAME = "alice/a.mp3"
CONFIG = config.validate({}, source="test")
TALK = Transcript(
    " Mayer here. Who?",
    (Segment(0.0, 1.0, " Mayer here.", speaker="Left"), Segment(1.0, 1.5, " Who?", speaker="Right")),
    "en",
)
ANNA = Correction({"Left": "Anna"}, {"Mayer": "Meyer"}, by="test")
OLD = "Left: Mayer here.\n\nRight: Who?\n"
NEW = "Anna: Meyer here.\n\nRight: Who?\n"


@pytest.fixture
def spool(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # what it is for, a power cut, cannot be had here
    return Spool(tmp_path / "spool")


def completed(spool, name=NAME, formats=FORMATS, **changes):
    """A job that a worker has transcribed and the daemon has published."""
    return spool.complete(name, TALK, formats, **changes)


def of(spool):
    return Corrections(spool.layout, spool.store.naming, spool.store.status_files)


def begin(spool, correction=ANNA, place=NAME, ticket=None):
    """Everything up to the plan; returns the id."""
    made = of(spool)
    found = made.find(place)
    number = made.begin(made.request(CONFIG, found, correction))
    rerender.main(made.directory(number))
    made.plan(number, found, correction, ticket)
    return number


def carry_out(spool, number):
    work = of(spool).carry_out(number)
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def correct(spool, correction=ANNA, place=NAME, ticket=None):
    return carry_out(spool, begin(spool, correction, place, ticket))


def outbox(spool):
    return {name: content.decode() for name, content in spool.files("outbox").items() if not name.endswith(".json")}


def left(spool):
    return [entry for entry in os.listdir(spool.layout.work) if entry.startswith(corrections.PREFIX)]


def test_all_formats_are_replaced_and_the_status_file_says_so(spool):
    """The original stays where it is, and no name changes."""
    completed(spool, formats=("txt", "srt", "json"))
    before = spool.sidecar(NAME)
    correct(spool)
    after = spool.sidecar(NAME)

    assert outbox(spool)["alice/a.txt"] == NEW
    assert "Anna: Meyer here." in outbox(spool)["alice/a.srt"]
    assert (after["status"], after["outputs"], after["original"]) == (
        "completed",
        before["outputs"],
        "done/alice/a.mp3",
    )
    assert after["digests"] == {
        kind: hashlib.sha256((spool.layout.root / path).read_bytes()).hexdigest()
        for kind, path in after["outputs"].items()
    }
    (entry,) = after["corrections"]
    assert entry["speakers"] == {"Left": "Anna"}
    assert entry["replacements"] == [{"wrong": "Mayer", "right": "Meyer", "count": 1}]
    assert (entry["by"], entry["kept"]) == ("test", {})
    assert {key for key in before if before[key] != after[key]} == {"digests", "corrections", "updated_at"}
    assert left(spool) == []


def test_formats_are_added(spool):
    """Those that exist are rendered too, so that no file contradicts another."""
    completed(spool)
    correct(spool, Correction({"Left": "Anna"}, formats=("vtt", "txt")))

    assert "<v Anna>" in outbox(spool)["alice/a.vtt"]
    assert outbox(spool)["alice/a.txt"].startswith("Anna: ")
    assert list(spool.sidecar(NAME)["outputs"]) == ["txt", "json", "vtt"]


def test_options_of_earlier_corrections_stay(spool):
    """The next one need not say them again."""
    completed(spool, formats=("srt", "json"))
    correct(spool, Correction(options={"max_line_width": 20}))

    request = of(spool).request(CONFIG, of(spool).find(NAME), ANNA)

    assert request.output.max_line_width == 20


def test_a_file_that_somebody_changed_stays_and_the_new_one_gets_a_number(spool):
    """The next correction replaces the numbered one, which is whisperd's own."""
    completed(spool, formats=("txt", "srt", "json"))
    (spool.layout.outbox / "alice/a.txt").write_text("mine")
    spool.put("outbox/alice/a-2.txt", b"a stranger's")
    plan = correct(spool)

    assert outbox(spool)["alice/a.txt"] == "mine"
    assert outbox(spool)["alice/a-2.txt"] == "a stranger's"
    assert outbox(spool)["alice/a-3.txt"] == NEW
    assert "Anna" in outbox(spool)["alice/a.srt"]
    assert plan.kept == {"txt": "a.txt"}
    document = spool.sidecar(NAME)
    assert document["outputs"]["txt"] == "outbox/alice/a-3.txt"
    assert document["corrections"][0]["kept"] == {"txt": "outbox/alice/a.txt"}

    correct(spool, Correction({"Anna": "Ann"}))

    assert outbox(spool)["alice/a-3.txt"].startswith("Ann: ")
    assert (outbox(spool)["alice/a.txt"], spool.sidecar(NAME)["corrections"][1]["kept"]) == ("mine", {})
    assert set(outbox(spool)) == {"alice/a.txt", "alice/a-2.txt", "alice/a-3.txt", "alice/a.srt"}


def test_a_transcript_that_somebody_edited_is_rendered_and_stays(spool):
    """Its text is the recorded one from then on."""
    completed(spool)
    path = spool.layout.outbox / "alice/a.json"
    content = json.loads(path.read_bytes())
    content["segments"][1]["text"] = " Who is there?"
    path.write_text(json.dumps(content))
    correct(spool)

    assert outbox(spool)["alice/a.txt"] == "Anna: Meyer here.\n\nRight: Who is there?\n"
    assert json.loads(path.read_bytes()) == content
    assert spool.sidecar(NAME)["outputs"]["json"] == "outbox/alice/a-2.json"


def test_files_of_a_release_that_recorded_no_digests_stay(spool):
    """Nobody knows whether somebody has changed them; those that would not change are left alone."""
    completed(spool, formats=("txt", "tsv", "json"), digests={})
    correct(spool, Correction(replacements={"Nobody": "No one"}, by="test"))

    assert set(outbox(spool)) == {"alice/a.txt", "alice/a.tsv"}
    assert set(spool.sidecar(NAME)["corrections"][0]["kept"]) == {"json"}


def test_a_file_that_was_removed_is_there_again(spool):
    """All formats are written."""
    completed(spool)
    (spool.layout.outbox / "alice/a.txt").unlink()
    correct(spool)

    assert outbox(spool)["alice/a.txt"] == NEW


def test_what_is_saved_at_the_last_moment_stays(spool, monkeypatch):
    """Between the look at a file and its removal."""
    completed(spool)
    real, path = corrections.move, spool.layout.outbox / "alice/a.txt"

    def saved_before(source, name, target, new_name):
        if new_name == "replaced-txt" and path.read_text() == OLD:
            path.write_text("mine")
        real(source, name, target, new_name)

    monkeypatch.setattr(corrections, "move", saved_before)
    correct(spool)

    assert outbox(spool) == {"alice/a.txt": "mine", "alice/a-2.txt": NEW}


def test_a_name_that_a_running_job_will_use_is_left_to_it(spool):
    """It has been promised the name of a transcript."""
    completed(spool, formats=("json",))
    spool.store.naming.hold("other", "alice/a.wav", ("txt",))
    correct(spool, Correction(formats=("txt",)))

    assert set(outbox(spool)) == {"alice/a-2.txt"}


def test_the_ticket_moves_to_done(spool):
    """Beside the original; no name there is ever taken twice, and a ticket that was changed since stays."""
    completed(spool)
    spool.put("done/alice/a.mp3.yaml", b"of the upload")
    path = spool.put("inbox/alice/a.mp3.yaml", b"correction: true")
    ticket = Ticket("alice/a.mp3.yaml", signature=Signature.of(path.stat()))
    correct(spool, ticket=ticket)

    assert (spool.layout.done / "alice/a.mp3-2.yaml").read_bytes() == b"correction: true"
    assert not path.exists()

    path.write_bytes(b"changed")
    correct(spool, Correction({"Anna": "Ann"}), ticket=ticket)
    assert path.read_bytes() == b"changed"


@pytest.mark.parametrize("name", ["\udcff/\n.mp3", "c" * 255, "a", "index.mp3"])
def test_any_name_can_be_corrected(spool, name):
    """Also one that the status file cannot show as it is."""
    completed(spool, name)
    correct(spool, place=name)

    folders, file = names.split(name)
    assert outbox(spool)[names.join(folders, names.output(file, "txt"))] == NEW


class PowerCut(BaseException):
    """Nothing that was about to be done happens any more."""


def cut_after(monkeypatch, steps):
    """Let every durable step be the last one."""
    left_over = itertools.count(steps, -1)

    def fused(step):
        def step_or_cut(*arguments, **options):
            if next(left_over) <= 0:
                raise PowerCut
            return step(*arguments, **options)

        return step_or_cut

    for module, call in [
        (corrections, "write"),
        (corrections, "move"),
        (publish, "move"),
        (status_file, "write"),
        (corrections, "remove_tree"),
        (job_directory, "write"),
    ]:
        monkeypatch.setattr(module, call, fused(getattr(module, call)))


@pytest.mark.parametrize("steps", range(14))
def test_a_crash_leaves_the_old_files_or_the_new_ones(spool, steps):
    """Wherever it happens, and though somebody has changed one of the files; the next process finishes or forgets it."""
    completed(spool, formats=("txt", "srt", "tsv", "json"))
    (spool.layout.outbox / "alice/a.srt").write_text("mine")
    path = spool.put("inbox/alice/a.mp3.yaml", b"correction: true")
    ticket = Ticket("alice/a.mp3.yaml", signature=Signature.of(path.stat()))
    before = spool.files("outbox")
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(PowerCut):
        cut_after(patch, steps)
        correct(spool, ticket=ticket)
    is_planned = any((spool.layout.work / entry / "plan.json").exists() for entry in left(spool))
    spool.restart()
    for number in of(spool).unfinished():
        carry_out(spool, number)

    after = spool.files("outbox")
    assert after["alice/a.srt"] == b"mine"
    assert left(spool) == []
    if steps < 2:  # nothing was planned yet
        assert not is_planned
        assert after == before
        assert path.exists()
        return
    assert set(after) == {*before, "alice/a-2.srt"}
    assert after["alice/a.txt"].decode() == NEW
    assert after["alice/a.tsv"] != before["alice/a.tsv"]
    document = spool.sidecar(NAME)
    assert document["outputs"]["srt"] == "outbox/alice/a-2.srt"
    assert document["corrections"][0]["kept"] == {"srt": "outbox/alice/a.srt"}
    assert len(document["corrections"]) == 1
    assert [entry.name for entry in (spool.layout.done / "alice").iterdir()].count("a.mp3.yaml") == 1
    assert not path.exists()


def test_a_damaged_plan_is_forgotten(spool):
    """It was not recorded completely, so nothing has happened."""
    completed(spool)
    number = begin(spool)
    (of(spool).directory(number) / "plan.json").write_bytes(b'{"place": "al')

    assert of(spool).unfinished() == []
    assert outbox(spool)["alice/a.txt"] == OLD
    assert left(spool) == []


def test_a_status_file_of_somebody_else_is_not_replaced(spool, caplog):
    """The transcripts are there, and the log says why the status file does not name them."""
    completed(spool)
    number = begin(spool)
    path = spool.layout.outbox / "alice/a.mp3.status.json"
    path.write_text("mine")
    carry_out(spool, number)

    assert (path.read_text(), outbox(spool)["alice/a.txt"]) == ("mine", NEW)
    assert "somebody has put another file in the place of its status file" in caplog.text


@pytest.mark.parametrize(
    ("prepare", "reason", "is_early"),
    [
        (lambda spool: None, "no completed job is called alice/a.mp3", True),
        (lambda spool: spool.store.show(spool.take(NAME)), "alice/a.mp3 is not completed: pending", True),
        (lambda spool: completed(spool, formats=("txt",)), "was not recorded: json was not among its formats", False),
        (lambda spool: completed(spool, duplicate_of="b.mp3"), "a duplicate (correct b.mp3 instead)", False),
    ],
    ids=["unknown", "running", "no json", "duplicate"],
)
def test_what_cannot_be_corrected_is_refused(spool, prepare, reason, is_early):
    """With the reason and the remedy."""
    prepare(spool)

    with pytest.raises(CorrectionRefused) as refused:
        of(spool).find(NAME)

    assert reason in str(refused.value)
    assert refused.value.is_early is is_early


def test_a_status_file_that_names_other_files_is_refused(spool):
    """A user could have it point to anything."""
    completed(spool)
    document = spool.sidecar(NAME)
    document["outputs"]["txt"] = "outbox/bob/secret.txt"
    (spool.layout.outbox / "alice/a.mp3.status.json").write_text(json.dumps(document))

    with pytest.raises(CorrectionRefused, match="names a file that is not its own: txt"):
        of(spool).find(NAME)


@pytest.mark.parametrize("report", [None, b"{", b"[]", b'{"digests": {"txt": "x", "json": "y"}, "replacements": []}'])
def test_a_process_that_renders_and_breaks_changes_nothing(spool, report):
    """Its report is missing, torn or a lie."""
    completed(spool)
    made = of(spool)
    number = made.begin(made.request(CONFIG, made.find(NAME), ANNA))
    if report is not None:
        (made.directory(number) / "report.json").write_bytes(report)

    with pytest.raises(CorrectionRefused, match="could not be rendered"):
        made.plan(number, made.find(NAME), ANNA)

    assert left(spool) == []
    assert outbox(spool)["alice/a.txt"] == OLD


def test_a_refusal_of_the_process_that_renders_is_passed_on(spool):
    """And nothing is left of it."""
    completed(spool)

    with pytest.raises(CorrectionRefused, match="nobody is called Middle"):
        begin(spool, Correction({"Middle": "Anna"}))

    assert left(spool) == []


def test_a_pattern_that_was_not_tried_everywhere_is_named(spool, monkeypatch):
    """A user who reads the status file does not take it for one that found nothing."""
    monkeypatch.setattr(replacements, "TOTAL_SECONDS", 0.0)
    completed(spool)
    correct(spool, Correction(replacements={"/Ma.er/": "Meyer"}))

    (entry,) = spool.sidecar(NAME)["corrections"]
    assert entry["replacements"] == [{"wrong": "/Ma.er/", "right": "Meyer", "count": 0, "complete": False}]
    assert outbox(spool)["alice/a.txt"] == OLD
