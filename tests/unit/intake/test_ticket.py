"""What a ticket may look like, and what is said of one that does not."""

import itertools
import os

import pytest
from support.options import INTAKE

from whisperd.core.job import Signature
from whisperd.intake.lease import Leases
from whisperd.intake.ticket import BYTES_MAX, SPELLINGS_MAX, Tickets, is_folder_ticket, is_ticket, parse


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
        (b"language: fr\nbeam_size: [", "line 2: not valid YAML"),
        (b"language: fr\ntask: a: b\n", "line 2: not valid YAML: mapping values are not allowed here"),
        (b"language: fr\nlanguage: de\n", "line 2: language is given twice"),
        (b"just a text\n", "line 1: only `key: value` lines"),
        (b"- language\n", "line 1: only `key: value` lines"),
        (b"vad:\n  enabled: false\n", "line 2: only `key: value` lines"),
        (b"a: [[1]]\n", "line 1: only `key: value` lines"),
        (b"a: &x 1\nb: *x\n", "line 1: anchors and aliases"),
        (b"a: !!python/object/apply:os.system [ls]\n", "line 1: tags"),
        (b"a: 1\n---\nb: 2\n", "line 2: only one document"),
        (b"[a, b]: 1\n", "line 1: a key must be a word"),
        (b"beam_size: " + b"9" * 5000, "line 1: "),
        (b"x: 1e999\n", "line 1: the number is too large"),
        (b'x: "\\ud800"\n', "line 1: a lone half of a surrogate pair"),
        (b"x: \xff\n", "is not UTF-8"),
        (b"x: \x00\n", "not valid YAML"),
        (b"a: 1\n" * BYTES_MAX, "has more than 16 kB"),
        (b"[" * BYTES_MAX, "line 1: only `key: value` lines"),
    ],
)  # fmt: skip
def test_what_a_ticket_cannot_be_is_said_with_its_line(data, problem):
    """And nothing of it is followed."""
    ticket = parse("a.mp3.yaml", data)

    assert ticket.values == {}
    assert len(ticket.problems) == 1
    assert ticket.problems[0].startswith(problem)


def test_each_key_knows_its_line():
    """Comments and empty lines count."""
    assert parse("x", b"\n# why\nlanguage: fr\n\ntask: translate\n").lines == {"language": 3, "task": 5}


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
