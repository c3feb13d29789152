"""What a ticket may look like, and what is said of one that does not."""

import pytest

from whisperd.intake.ticket import BYTES_MAX, is_ticket, parse, read


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
        (b"language: fr\nbeam_size: [", "line 2: no valid YAML"),
        (b"language: fr\ntask: a: b\n", "line 2: no valid YAML: mapping values are not allowed here"),
        (b"language: fr\nlanguage: de\n", "line 2: language stands twice"),
        (b"just a text\n", "line 1: only `key: value` lines"),
        (b"- language\n", "line 1: only `key: value` lines"),
        (b"vad:\n  enabled: false\n", "line 2: only `key: value` lines"),
        (b"a: [[1]]\n", "line 1: only `key: value` lines"),
        (b"a: &x 1\nb: *x\n", "line 1: anchors and aliases"),
        (b"a: !!python/object/apply:os.system [ls]\n", "line 1: tags"),
        (b"a: 1\n---\nb: 2\n", "line 2: a second document"),
        (b"[a, b]: 1\n", "line 1: a key must be a word"),
        (b"beam_size: " + b"9" * 5000, "line 1: "),
        (b"x: 1e999\n", "line 1: a number that large"),
        (b'x: "\\ud800"\n', "line 1: half a character"),
        (b"x: \xff\n", "is not UTF-8"),
        (b"x: \x00\n", "no valid YAML"),
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

    assert [ticket.problems for ticket in read(tmp_path, "a.wav")] == [("is a symlink",)]
    assert [ticket.problems for ticket in read(tmp_path, "b.wav")] == [("is not a regular file",)]
    assert read(tmp_path, "c.wav") == ()


def test_of_two_suffixes_one_counts(tmp_path):
    """The longer one."""
    (tmp_path / "a.wav.yml").write_text("language: fr")
    (tmp_path / "a.wav.yaml").write_text("language: de")

    assert [(ticket.suffix, ticket.values) for ticket in read(tmp_path, "a.wav")] == [(".yaml", {"language": "de"})]


@pytest.mark.parametrize("name", ["a.mp3.yaml", "b/A.MP3.YAML", "x.yml"])
def test_what_is_called_like_a_ticket_is_one(name):
    """Whatever the case: a YAML file is never a recording."""
    assert is_ticket(name)
