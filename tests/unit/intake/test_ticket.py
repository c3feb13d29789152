"""What a ticket may look like, and what is said of one that does not."""

import itertools
import json
import os

import pytest
from support.options import INTAKE

from whisperd.core.correction import is_correction
from whisperd.core.job import Signature
from whisperd.intake.ticket import BYTES_MAX, JSON_BYTES_MAX, SPELLINGS_MAX, Tickets, is_folder_ticket, is_ticket, parse
from whisperd.intake.writers import Leases


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("language: fr\nbeam_size: 5\n", {"language": "fr", "beam_size": 5}),
        ("{language: fr}", {"language": "fr"}),
        ('{"language": "fr", "formats": ["srt"]}', {"language": "fr", "formats": ("srt",)}),
        ("formats:\n  - srt\n  - txt\n", {"formats": ("srt", "txt")}),
        ("\ufefflanguage: fr\r\n", {"language": "fr"}),
        ("language: no\n", {"language": "no"}),
        ("language: null\nword_timestamps: true\ntemperature: [0, 0.2]\n", {"language": None, "word_timestamps": True, "temperature": (0, 0.2)}),
        ("initial_prompt: 2020-01-01 is a date\nx: 12:30\n", {"initial_prompt": "2020-01-01 is a date", "x": "12:30"}),
        ("replacements:\n  Mayer: Meyer\n  zwei: 2\n  äh:\n", {"replacements": {"Mayer": "Meyer", "zwei": "2", "äh": ""}}),
        ("", {}),
        ("# nothing yet\n", {}),
    ],
)  # fmt: skip
def test_lines_lists_and_json_are_read(text, values):
    """As people and programs write them, on whatever system."""
    ticket = parse("a.mp3.yaml", text.encode())

    assert (ticket.values, ticket.problems) == (values, ())


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"language: fr\nbeam_size: [", "line 2, column 13: not valid YAML"),
        (b"language: fr\ntask: a: b\n", "line 2, column 8: not valid YAML: mapping values are not allowed here"),
        (b"language: fr\nlanguage: de\n", "line 2, column 1: language is given twice"),
        (b"just a text\n", "line 1, column 1: only `key: value` lines"),
        (b"- language\n", "line 1, column 1: only `key: value` lines"),
        (b"vad:\n  enabled: [false]\n", "line 2, column 12: only `key: value` lines"),
        (b"vad: {a: {b: c}}\n", "line 1, column 10: only `key: value` lines"),
        (b"r:\n  a: 1\n  a: 2\n", "line 3, column 3: a is given twice"),
        (b'r: {"\\ud800": x}\n', "line 1, column 5: a lone half of a surrogate pair"),
        (b"a: [[1]]\n", "line 1, column 5: only `key: value` lines"),
        (b"a: &x 1\nb: *x\n", "line 1, column 4: anchors and aliases"),
        (b"a: !!python/object/apply:os.system [ls]\n", "line 1, column 4: tags"),
        (b"a: 1\n---\nb: 2\n", "line 2, column 1: only one document"),
        (b"[a, b]: 1\n", "line 1, column 1: a key must be a word"),
        (b"beam_size: " + b"9" * 5000, "line 1, column 12: "),
        (b"x: 1e999\n", "line 1, column 4: the number is too large"),
        (b'x: "\\ud800"\n', "line 1, column 4: a lone half of a surrogate pair"),
        (b"x: \xff\n", "is not UTF-8"),
        (b"x: \x00\n", "not valid YAML"),
        (b"a: 1\n" * BYTES_MAX, "has more than 16 kB"),
        (b"[" * BYTES_MAX, "line 1, column 1: only `key: value` lines"),
    ],
)  # fmt: skip
def test_what_a_ticket_cannot_be_is_said_with_its_line(data, problem):
    """And nothing of it is followed."""
    ticket = parse("a.mp3.yaml", data)

    assert ticket.values == {}
    assert len(ticket.problems) == 1
    assert ticket.problems[0].startswith(problem)


def test_each_key_knows_its_position():
    """Comments and empty lines count, and so does what is before it in its line."""
    assert parse("x", b"\n# why\nlanguage: fr\n\ntask: translate\n").positions == {"language": (3, 1), "task": (5, 1)}
    assert parse("x", b"{language: fr, task: translate}").positions == {"language": (1, 2), "task": (1, 16)}


def test_what_is_no_file_is_a_bad_ticket(tmp_path):
    """A link could lead anywhere, a FIFO would hang the reader; neither is opened."""
    (tmp_path / "secret").write_text("language: fr")
    (tmp_path / "a.wav.yaml").symlink_to(tmp_path / "secret")
    (tmp_path / "b.wav.yaml").mkdir()

    tickets = Tickets(tmp_path)

    assert [ticket.problems for ticket in tickets.read("a.wav")] == [("is a symlink",)]
    assert [ticket.problems for ticket in tickets.read("b.wav")] == [("is not a regular file",)]
    assert tickets.read("c.wav") == ()


@pytest.fixture
def put(tmp_path):
    """Write files, and tell of the tickets among them as the watch does."""
    tickets = Tickets(tmp_path)

    def write(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("language: fr\n")
            if is_ticket(name):
                tickets.observe(name, Signature.of(os.stat(tmp_path / name)), 0.0)
        return tickets

    return write


@pytest.mark.parametrize(
    ("name", "ticket"),
    [
        ("a.wav", "a.wav.YAML"),
        ("a.wav", "a.wav.Yml"),
        ("Interview 7.MP3", "interview 7.mp3.yaml"),
        ("b/a.wav", "b/A.wav.yml"),
    ],
)
def test_a_ticket_counts_in_any_case(put, name, ticket):
    """As Windows and phones write it; the suffix goes along as it is."""
    (found,) = put(name, ticket).read(name)

    assert (found.name, found.values) == (ticket, {"language": "fr"})
    assert found.suffix == ticket[ticket.rindex(".") :]


@pytest.mark.parametrize("ticket", ["_whisperd.yml", "_Whisperd.yaml", "b/_WHISPERD.YAML"])
def test_the_ticket_of_a_folder_counts_in_any_case(put, ticket):
    """And does not go along with a recording."""
    (found,) = put("b/a.wav", ticket).read("b/a.wav")

    assert (found.name, found.suffix, found.values) == (ticket, "", {"language": "fr"})
    assert is_folder_ticket(ticket)


@pytest.mark.parametrize(
    ("tickets", "what"),
    [
        (("a.wav.YAML", "a.wav.yaml"), "recording"),
        (("a.wav.yaml", "a.wav.yml"), "recording"),
        (("A.WAV.yaml", "A.wav.yaml"), "recording"),
        (("_Whisperd.yaml", "_whisperd.yaml"), "folder"),
        (("_whisperd.yaml", "_whisperd.yml"), "folder"),
    ],
)
def test_of_two_tickets_none_counts(put, tickets, what):
    """Nobody can tell which one is meant; the reason names both and says what to do, and both stay where they are."""
    (found,) = put("a.wav", *tickets).read("a.wav")

    assert (found.name, found.suffix, found.values) == (tickets[0], "", {})
    assert found.problems == (f"the same {what} has the ticket {tickets[1]} as well, and only one can count",)
    assert "keep one of them in the inbox" in found.hint


def test_recordings_that_differ_in_case_keep_a_ticket_each(put):
    """As on any system where they are two files."""
    tickets = put("a.wav", "A.wav", "A.wav.yaml")

    assert [ticket.name for ticket in tickets.read("A.wav")] == ["A.wav.yaml"]
    assert tickets.read("a.wav") == ()
    put("a.wav.yaml")
    assert [ticket.name for ticket in tickets.read("a.wav")] == ["a.wav.yaml"]


def test_a_ticket_that_is_gone_does_not_count(put, tmp_path):
    """Whether or not anybody has told of it."""
    tickets = put("a.wav", "a.wav.YAML")
    (tmp_path / "a.wav.YAML").unlink()

    assert tickets.read("a.wav") == ()
    tickets.forget("a.wav.YAML")
    assert list(tickets) == []


def test_spellings_without_end_are_not_all_looked_at(put):
    """Each would be opened at each look at the recording; one that goes makes room for another."""
    spellings = ["".join(letters) + ".wav.yaml" for letters in itertools.product(*zip("abcdef", "ABCDEF", strict=True))]
    tickets = put(*spellings)
    assert len(list(tickets)) == SPELLINGS_MAX < len(spellings)

    (found,) = tickets.read("abcdef.WAV")
    assert found.problems[0].endswith(f" and {SPELLINGS_MAX - 3} more as well, and only one can count")

    tickets.forget(spellings[0])
    put(*spellings)
    assert len(list(tickets)) == SPELLINGS_MAX


class Blind(Leases):
    """A filesystem without leases, such as FUSE."""

    def are_trusted(self, folder):
        return False


@pytest.mark.parametrize(("leases", "seconds"), [(Leases(), 0.25), (Blind(), 5.0)], ids=["leases", "none"])
def test_a_ticket_settles_like_an_upload(put, tmp_path, leases, seconds):
    """By this machine's clock, whatever its own stamps are; each change and each event starts its quiet time again."""
    tickets = put("a.wav", "a.wav.yaml")
    os.utime(tmp_path / "a.wav.yaml", (0, 0))
    waiting = "waiting for its ticket a.wav.yaml, which is being written"

    assert tickets.unsettled("a.wav", 10.0, INTAKE, leases) == waiting
    assert tickets.unsettled("a.wav", 10.0 + seconds - 0.1, INTAKE, leases) == waiting
    tickets.touch("a.wav.yaml", 20.0)
    assert tickets.unsettled("a.wav", 20.0 + seconds - 0.1, INTAKE, leases) == waiting
    assert tickets.unsettled("a.wav", 20.0 + seconds, INTAKE, leases) is None


def test_a_ticket_that_is_open_is_waited_for(put, tmp_path):
    """However long its writer takes."""
    tickets = put("a.wav", "a.wav.YML")
    with (tmp_path / "a.wav.YML").open("r+b"):
        assert tickets.unsettled("a.wav", 1e6, INTAKE, Leases()) is not None

    assert tickets.unsettled("a.wav", 1e6, INTAKE, Leases()) is None


@pytest.mark.parametrize("name", ["a.mp3.yaml", "b/A.MP3.YAML", "x.yml"])
def test_what_is_called_like_a_ticket_is_one(name):
    """Whatever the case: a YAML file is never a recording."""
    assert is_ticket(name)


CORRECTION = "correction: true\n"


def asked_for(tickets, now=100.0):
    """The corrections that are due."""
    return [ticket.name for ticket in tickets.corrections(now, INTAKE, Leases()) if ticket]


@pytest.mark.parametrize("text", [CORRECTION, f"correction: {'0a' * 32}\n", "speakers: {A: B}\nlanguage: fr\n"])
def test_a_correction_never_counts_for_an_upload(put, tmp_path, text):
    """Whatever else it says; and an ordinary ticket is no correction."""
    tickets = put("a.wav", "a.wav.yaml", "b.wav.yaml")
    (tmp_path / "a.wav.yaml").write_text(text)

    assert tickets.read("a.wav") == ()
    assert asked_for(tickets, now=0.0) == []  # they have not settled
    tickets.observe("a.wav.yaml", Signature.of(os.stat(tmp_path / "a.wav.yaml")), 1.0)
    assert asked_for(tickets) == ["a.wav.yaml"]
    assert not tickets.has_unread


def test_a_correction_beside_a_ticket_of_the_upload(put, tmp_path):
    """Each means what it says."""
    tickets = put("a.wav", "a.wav.yaml", "a.wav.yml")
    (tmp_path / "a.wav.yaml").write_text(CORRECTION)

    assert [ticket.name for ticket in tickets.read("a.wav")] == ["a.wav.yml"]


def test_a_correction_is_looked_at_once_until_it_changes(put, tmp_path):
    """Or until its job has completed, or its time has come."""
    tickets = put("a.wav.yaml")
    path = tmp_path / "a.wav.yaml"
    path.write_text(CORRECTION)
    tickets.observe("a.wav.yaml", Signature.of(path.stat()), 1.0)
    assert asked_for(tickets) == ["a.wav.yaml"]
    tickets.judge("a.wav.yaml", "no job of that name", again_at=200.0, is_early=True)
    assert (asked_for(tickets), tickets.next_at(), tickets.has_unread) == ([], 200.0, False)
    tickets.observe("a.wav.yaml", Signature.of(path.stat()), 110.0)
    assert asked_for(tickets) == []

    tickets.job_completed(120.0)
    assert tickets.has_unread
    assert asked_for(tickets, 120.0) == ["a.wav.yaml"]
    tickets.judge("a.wav.yaml", "nobody is called so")
    assert (tickets.verdict("a.wav.yaml"), tickets.next_at()) == ("nobody is called so", float("inf"))

    path.write_text(f"{CORRECTION}# once more\n")
    tickets.observe("a.wav.yaml", Signature.of(path.stat()), 130.0)
    assert tickets.verdict("a.wav.yaml") == ""
    assert asked_for(tickets, 140.0) == ["a.wav.yaml"]


def test_tickets_that_are_turned_off_correct_nothing(put, tmp_path):
    """They stay where they are."""
    tickets = put("a.wav.yaml")
    (tmp_path / "a.wav.yaml").write_text(CORRECTION)
    tickets.enabled = False

    assert (asked_for(tickets), tickets.has_unread, tickets.next_at()) == ([], False, float("inf"))


def test_a_ticket_that_cannot_be_read_says_so_before_its_recording_comes(put, tmp_path):
    """Nobody has to wait for the failure of a recording to hear of it."""
    tickets = put("a.wav.yaml")
    (tmp_path / "a.wav.yaml").write_text("correction: {a: [b]}\n")
    tickets.observe("a.wav.yaml", Signature.of(os.stat(tmp_path / "a.wav.yaml")), 1.0)

    assert asked_for(tickets) == []
    assert tickets.verdict("a.wav.yaml").startswith(
        "this ticket cannot be followed: line 1, column 17: only `key: value` lines"
    )


PAGE_FILE = "a.mp3.correction.yaml"


@pytest.mark.parametrize(
    "text",
    [
        '{"transcript": "sha256:0a", "segments": [{"id": "3", "text": "a"}, {"id": "4-5"}]}',
        "transcript: sha256:0a\nsegments:\n  - {id: 3, text: a}\n  - id: 4-5\n",
    ],
    ids=["json", "yaml"],
)
def test_the_file_of_a_transcript_page_has_a_list_of_segments(text):
    """It is a correction by its name alone; other tickets may not be so deep."""
    segments = ({"id": "3", "text": "a"}, {"id": "4-5"})
    for name in (PAGE_FILE, "b/a.mp3.CORRECTION (1).yml", "a.mp3.correction-2.yaml"):
        ticket = parse(name, text.encode())
        assert ticket.values == {"correction": True, "transcript": "sha256:0a", "segments": segments}
        assert is_correction(ticket.values)
    assert is_correction(parse(PAGE_FILE, b"").values)
    assert parse("a.mp3.yaml", text.encode()).problems != ()


def test_a_large_file_of_a_page_is_json():
    """YAML of that size would hold up the loop of the supervisor."""
    text = json.dumps({"segments": [{"id": "1"}] * 20_000})

    assert len(parse(PAGE_FILE, text.encode()).values["segments"]) == 20_000
    for wrong in (text.replace('"', ""), text[:-1], text + " " * JSON_BYTES_MAX):
        assert "has more than 16 kB and is no JSON" in parse(PAGE_FILE, wrong.encode()).problems[0]


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a": "\\ud800"}',
        '{"a": {"\\ud800": "b"}}',
        '{"a": ' + "[" * 15_000 + "}",
        '{"a": ' + "9" * 5000 + "}",
        "{a: {b: {c: d}}}",
        "{segments: [{a: [b]}]}",
        "replacements: {a: {b: c}}",
    ],
)
def test_what_json_and_yaml_of_a_page_may_not_be(text):
    """Nothing is raised, and nothing of it is followed."""
    ticket = parse(PAGE_FILE, text.encode())

    assert ticket.problems
    assert not ticket.values
