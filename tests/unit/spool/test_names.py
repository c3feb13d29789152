"""Names of files: what a job's outputs are called, whatever its own name is."""

import os

import pytest

from whisperd.spool import names

LONG = {
    "ascii": "a" * 251 + ".mp3",
    "no_extension": "b" * 255,
    "two_byte_characters": "é" * 125 + "a.mp3",
    "four_byte_characters": "🎙" * 62 + "abc.mp3",
    "not_utf8": "\udcff" * 251 + ".mp3",
    "all_extension": "." + "c" * 254,
    "extension_of_the_greatest_length": "d" * 223 + "." + "e" * 31,
}
long_names = pytest.mark.parametrize("file", LONG.values(), ids=LONG.keys())


def size(name):
    return len(os.fsencode(name))


@pytest.mark.parametrize(
    ("name", "folders", "file"),
    [("a.mp3", (), "a.mp3"), ("alice/a.mp3", ("alice",), "a.mp3"), ("a/b/c", ("a", "b"), "c")],
    ids=["top", "one_folder", "two_folders"],
)
def test_a_name_is_its_folders_and_its_file(name, folders, file):
    """`join` undoes `split`."""
    assert names.split(name) == (folders, file)
    assert names.join(folders, file) == name


@pytest.mark.parametrize(
    ("file", "stem", "extension"),
    [
        ("interview.mp3", "interview", ".mp3"),
        ("README", "README", ""),
        (".hidden", ".hidden", ""),
        ("a.tar.gz", "a.tar", ".gz"),
        ("a.", "a", "."),
        ("Dr. Smith and all that he said on that day", "Dr. Smith and all that he said on that day", ""),
        ("2026.01.02 board.WAV", "2026.01.02 board", ".WAV"),
        ("a\udcff.mp3", "a\udcff", ".mp3"),
    ],
)
def test_an_extension_is_what_follows_the_last_dot_unless_it_is_too_long_to_be_one(file, stem, extension):
    """Nothing is lost in the cut: the two parts make the name."""
    assert names.stem_and_extension(file) == (stem, extension)
    assert stem + extension == file


@pytest.mark.parametrize(
    ("file", "second"),
    [("a.mp3", "a-2.mp3"), ("README", "README-2"), (".hidden", ".hidden-2"), ("a-2.mp3", "a-2-2.mp3"), ("a.", "a-2.")],
)
def test_the_second_of_a_name_gets_its_number_before_the_extension(file, second):
    """The first keeps its name."""
    assert names.numbered(file, 1) == file
    assert names.numbered(file, 2) == second


def test_an_output_has_the_stem_and_a_sidecar_the_whole_name():
    """So the sidecars of `a.mp3` and `a.wav` differ, and a transcript is found by its recording's name."""
    assert names.output("a.mp3", "txt") == "a.txt"
    assert names.sidecar("a.mp3") == "a.mp3.status.json"


@long_names
def test_no_name_that_is_made_is_too_long_for_a_directory(file):
    """255 bytes is the limit, and names of that length are uploaded."""
    assert size(file) == names.NAME_MAX
    made = [names.numbered(file, 2), names.numbered(file, 1000), names.output(file, "json"), names.sidecar(file)]

    assert all(size(name) <= names.NAME_MAX for name in made)
    assert len(set(made)) == len(made)
    assert made[2].endswith(".json")
    assert made[3].endswith(".status.json")


@long_names
def test_a_numbered_name_keeps_its_extension(file):
    """A player tells a recording by it."""
    extension = names.stem_and_extension(file)[1]

    assert names.numbered(file, 2).endswith(f"-2{extension}")


@pytest.mark.parametrize("kind", ["ascii", "two_byte_characters", "four_byte_characters"])
def test_a_shortened_name_is_utf8_if_the_long_one_is(kind):
    """A cut within a character would make a name that SMB and sftp clients cannot show."""
    names.sidecar(LONG[kind]).encode("utf-8")
    names.numbered(LONG[kind], 2).encode("utf-8")


def test_long_names_that_differ_at_their_end_alone_stay_apart():
    """The hash of what was cut off tells them apart."""
    ours, theirs = "a" * 250 + "1.mp3", "a" * 250 + "2.mp3"

    assert names.sidecar(ours) != names.sidecar(theirs)
    assert names.numbered(ours, 2) != names.numbered(theirs, 2)
    assert names.output(ours, "verylongformat") != names.output(theirs, "verylongformat")


def test_a_name_that_fits_exactly_is_not_touched():
    """243 bytes and `.status.json` are 255."""
    file = "a" * (255 - len(".status.json"))

    assert names.sidecar(file) == file + ".status.json"


def test_the_first_free_number_is_found_one_by_one_while_few_are_taken():
    """A gap is filled, as people expect of a handful of files."""
    assert names.first_free(lambda number: number in {1, 2, 4, 5}) == 3
    assert names.first_free(lambda number: False) == 1


@pytest.mark.parametrize("taken", [*range(1, 40), 1000, 99_999])
def test_a_number_behind_many_that_are_taken_is_the_next_one(taken):
    """However many there are, and after a bounded number of tries."""
    tried = []

    assert names.first_free(lambda number: tried.append(number) or number <= taken) == taken + 1
    assert len(tried) <= 50
