"""Names of a job's files, and the `-2` rule: one number for the whole job, and nothing that exists is ever touched."""

import json
import os

import pytest
from support.spool import FAILURE, FORMATS, SEEN_AT, Spool

from whisperd.spool import names, status_file
from whisperd.spool.durable import Folder

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


def test_an_output_has_the_stem_and_a_status_file_the_whole_name():
    """So the status files of `a.mp3` and `a.wav` differ, and a transcript is found by its recording's name."""
    assert names.output("a.mp3", "txt") == "a.txt"
    assert names.status_file("a.mp3") == "a.mp3.status.json"


@long_names
def test_no_name_that_is_made_is_too_long_for_a_directory(file):
    """255 bytes is the limit, and names of that length are uploaded."""
    assert size(file) == names.NAME_MAX
    made = [names.numbered(file, 2), names.numbered(file, 1000), names.output(file, "json"), names.status_file(file)]

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
    names.status_file(LONG[kind]).encode("utf-8")
    names.numbered(LONG[kind], 2).encode("utf-8")


def test_long_names_that_differ_at_their_end_alone_stay_apart():
    """The hash of what was cut off tells them apart."""
    ours, theirs = "a" * 250 + "1.mp3", "a" * 250 + "2.mp3"

    assert names.status_file(ours) != names.status_file(theirs)
    assert names.numbered(ours, 2) != names.numbered(theirs, 2)
    assert names.output(ours, "verylongformat") != names.output(theirs, "verylongformat")


def test_a_name_that_fits_exactly_is_not_touched():
    """243 bytes and `.status.json` are 255."""
    file = "a" * (255 - len(".status.json"))

    assert names.status_file(file) == file + ".status.json"


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


# --- the place of a job ---

OUTPUTS = ["outbox/a.txt", "outbox/a.json", "outbox/a.mp3.status.json", "done/a.mp3", "failed/a.mp3"]


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def choose(spool, name, job_id="new"):
    return spool.store.naming.choose(job_id, name, FORMATS)


def explain(spool, name):
    """The status file of a file that waits in the inbox."""
    spool.store.status_files.explain(name, 1, "this is a FIFO")


def test_a_name_that_is_free_is_the_place(spool):
    """Folders included, which need not exist."""
    assert choose(spool, "alice/b/a.mp3") == "alice/b/a.mp3"
    assert not (spool.layout.outbox / "alice").exists()


@pytest.mark.parametrize("path", OUTPUTS)
@pytest.mark.parametrize("obstacle", ["file", "folder", "dangling_symlink"])
def test_one_taken_name_gives_the_whole_job_a_suffix(spool, path, obstacle):
    """Whichever of its names it is, and whatever stands there."""
    target = spool.layout.root / path
    {"file": target.touch, "folder": target.mkdir, "dangling_symlink": lambda: target.symlink_to("x")}[obstacle]()

    assert choose(spool, "a.mp3") == "a-2.mp3"


def test_the_first_number_is_taken_at_which_every_name_is_free(spool):
    """A gap that fits only some of the names is passed over."""
    spool.put("done/a.mp3")
    spool.put("outbox/a-2.json")
    spool.put("outbox/a-4.txt")

    assert choose(spool, "a.mp3") == "a-3.mp3"


MANY = 1000
TRIES_MAX = 30


@pytest.fixture
def tries(monkeypatch):
    """Every number that is tried from now on."""
    tried = []
    numbered = names.numbered
    monkeypatch.setattr(names, "numbered", lambda file, number: tried.append(number) or numbered(file, number))
    return tried


def test_the_thousandth_file_of_one_name_gets_its_number_after_few_tries(spool, tries):
    """Numbers tried one by one from the first would make thousands of files of one name take quadratic time."""
    for number in range(1, MANY):
        spool.put(f"done/{names.numbered('a.mp3', number)}")
    tries.clear()

    assert choose(spool, "a.mp3") == f"a-{MANY}.mp3"
    assert len(tries) <= TRIES_MAX


def test_the_thousandth_job_of_one_name_gets_its_number_after_few_tries(spool, tries):
    """Names that are promised to other jobs under way count as taken."""
    for number in range(1, MANY):
        spool.store.naming.hold(str(number), names.numbered("a.mp3", number), FORMATS)
    tries.clear()

    assert choose(spool, "a.mp3") == f"a-{MANY}.mp3"
    assert len(tries) <= TRIES_MAX


def test_the_thousandth_upload_of_one_name_goes_back_after_few_tries(spool, tries):
    """The inbox numbers what is given back in the same way, and overwrites nothing."""
    job = spool.take("a.mp3")
    for number in range(1, MANY):
        spool.put(f"inbox/{names.numbered('a.mp3', number)}")
    tries.clear()

    assert spool.store.release(job) == f"a-{MANY}.mp3"
    assert len(tries) <= TRIES_MAX
    assert spool.files("inbox")[f"a-{MANY}.mp3"] == b"a.mp3"
    assert list(spool.files("inbox").values()).count(b"a stranger's") == MANY - 1


def test_a_name_taken_between_the_look_and_the_move_is_not_overwritten(spool, monkeypatch):
    """The rename that refuses to overwrite decides, whatever a look at the inbox said."""
    job = spool.take("a.mp3")
    spool.put("inbox/a.mp3")
    monkeypatch.setattr(Folder, "exists", lambda folder, name: name == job.original)

    assert spool.store.release(job) == "a-2.mp3"
    assert spool.files("inbox") == {"a.mp3": b"a stranger's", "a-2.mp3": b"a.mp3"}


def test_names_in_other_folders_do_not_matter(spool):
    """Each folder of the inbox has its own."""
    spool.put("done/alice/a.mp3")

    assert choose(spool, "a.mp3") == "a.mp3"
    assert choose(spool, "bob/a.mp3") == "bob/a.mp3"


@pytest.mark.parametrize(
    ("first", "second", "place"),
    [
        ("a.mp3", "a.mp3", "a-2.mp3"),
        ("a.mp3", "a.wav", "a-2.wav"),
        ("a.mp3", "a", "a-2"),
        ("a.mp3", "b.mp3", "b.mp3"),
        ("a.mp3", "x/a.mp3", "x/a.mp3"),
        ("a.mp3", "a.mp3.status.wav", "a.mp3.status-2.wav"),
        ("a.mp3.status.wav", "a.mp3", "a-2.mp3"),
    ],
    ids=[
        "same_name",
        "same_stem",
        "no_extension",
        "other_name",
        "other_folder",
        "transcript_like_a_status_file",
        "status_file_like_a_transcript",
    ],
)
def test_jobs_under_way_keep_out_of_each_others_way(spool, first, second, place):
    """Though neither has written anything yet."""
    choose(spool, first, "one")

    assert choose(spool, second, "two") == place


def test_a_place_is_free_again_when_its_job_is_dropped(spool):
    """A claim that came to nothing costs no number."""
    choose(spool, "a.mp3", "one")
    spool.store.naming.drop("one")
    spool.store.naming.drop("one")

    assert choose(spool, "a.mp3", "two") == "a.mp3"


def test_a_job_does_not_stand_in_its_own_way(spool):
    """When it must choose again, what it held is free, unless something is there."""
    choose(spool, "a.mp3", "one")
    assert choose(spool, "a.mp3", "one") == "a.mp3"
    spool.put("done/a.mp3")

    assert choose(spool, "a.mp3", "one") == "a-2.mp3"


@pytest.mark.parametrize("room", ["outbox", "done", "failed"])
@pytest.mark.parametrize("obstacle", ["file", "symlink"])
def test_a_folder_whose_name_is_taken_gets_a_suffix(spool, room, obstacle):
    """The same in all three rooms; a symlink is not followed."""
    target = spool.layout.root / room / "alice"
    target.touch() if obstacle == "file" else target.symlink_to(spool.layout.inbox)

    assert choose(spool, "alice/b/a.mp3") == "alice-2/b/a.mp3"


def test_a_folder_below_a_folder_gets_the_suffix_where_it_is_needed(spool):
    """The folders above keep their names."""
    spool.put("outbox/alice/b")

    assert choose(spool, "alice/b/a.mp3") == "alice/b-2/a.mp3"


@pytest.mark.parametrize("room", ["outbox", "done", "failed"])
def test_a_room_that_is_no_folder_is_an_error_and_no_number_is_sought(spool, room):
    """No number would help: the search went on for ever, and the daemon stood still."""
    (spool.layout.root / room).rmdir()
    spool.put(room)

    with pytest.raises(NotADirectoryError):
        choose(spool, "alice/a.mp3")


@pytest.mark.parametrize("name", ["a" * 251 + ".mp3", "\udcff" * 255], ids=["ascii", "not_utf8"])
def test_names_of_the_greatest_length_get_places_that_fit(spool, name):
    """All their names, numbered ones too, and no two alike."""
    places = [choose(spool, name, str(number)) for number in range(3)]
    paths = {names.output(place, kind) for place in places for kind in FORMATS} | set(map(names.status_file, places))

    assert len(paths) == 9
    assert all(len(os.fsencode(path)) <= 255 for path in (*places, *paths))


# --- status files that no longer stand in the way ---


def test_the_explanation_of_a_waiting_upload_makes_room_for_its_job(spool):
    """It was about this very file."""
    explain(spool, "a.mp3")

    assert choose(spool, "a.mp3") == "a.mp3"


@pytest.mark.parametrize("name", ["a.mp3", "ali\udcff/a\nb.mp3", "b" * 255], ids=["plain", "escaped", "long"])
def test_the_status_file_of_a_failed_job_makes_room_once_its_original_was_moved_away(spool, name):
    """So a retry gets the names it had; as long as the original is in failed/ they are taken."""
    job = spool.take(name)
    spool.store.fail(job, FAILURE)
    assert choose(spool, name) != name
    (spool.layout.failed / name).unlink()

    assert choose(spool, name) == name


def test_a_completed_status_file_stays_in_the_way(spool):
    """Even when everything else of the job was taken away: it is an earlier job's word."""
    spool.finish(spool.take("a.mp3"))
    for path in ("done/a.mp3", "outbox/a.txt", "outbox/a.json"):
        (spool.layout.root / path).unlink()

    assert choose(spool, "a.mp3") == "a-2.mp3"


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"schema": 1}', b"\0" * 5000], ids=repr)
def test_a_strangers_file_under_the_name_of_a_status_file_stays_in_the_way(spool, content):
    """However like a status file it looks."""
    spool.put("outbox/a.mp3.status.json", content)

    assert choose(spool, "a.mp3") == "a-2.mp3"


@pytest.mark.parametrize(
    "change",
    [{"status": 7}, {"original": None}, {"original": 7}, {"original": "done/a.mp3"}, {"original": "failed/../x"}],
    ids=repr,
)
def test_a_failed_status_file_that_was_tampered_with_stays_in_the_way(spool, change):
    """Only what whisperd itself would have written makes room."""
    spool.store.fail(spool.take("a.mp3"), FAILURE)
    (spool.layout.failed / "a.mp3").unlink()
    spool.put("outbox/a.mp3.status.json", status_file.encode(spool.sidecar("a.mp3") | change))

    assert choose(spool, "a.mp3") == "a-2.mp3"


@pytest.mark.parametrize("kind", ["waiting", "failed"])
def test_a_status_file_makes_room_for_another_status_file_alone(spool, kind):
    """A transcript that would have its name (that of `a.mp3.status.wav` as JSON) cannot be written there: a move never overwrites."""
    if kind == "waiting":
        explain(spool, "a.mp3")
    else:
        spool.store.fail(spool.take("a.mp3"), FAILURE)
        (spool.layout.failed / "a.mp3").unlink()

    assert choose(spool, "a.mp3.status.wav") == "a.mp3.status-2.wav"


def test_a_transcript_beside_a_strange_status_file_is_published(spool):
    """The whole way: it ends, under another name, and the explanation stays."""
    os.mkfifo(spool.layout.inbox / "a.mp3")
    explain(spool, "a.mp3")
    job = spool.finish(spool.take("a.mp3.status.wav"))

    assert job.place == "a.mp3.status-2.wav"
    assert json.loads((spool.layout.outbox / "a.mp3.status.json").read_bytes())["reason"] == "this is a FIFO"
    assert job.created_at == SEEN_AT
