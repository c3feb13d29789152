"""Complete: quiet, no writer, and a container that keeps its promise; where one is missing, its reason; and still so after the run."""

import errno
import hashlib
import os

import pytest
from support.daemon import tone
from support.options import INTAKE as OPTIONS

from whisperd.core.job import Job, Signature
from whisperd.intake.complete import Changed, OriginalState, Refuse, Take, Wait, judge, recheck
from whisperd.intake.ignore import UNFINISHED
from whisperd.intake.writers import Leases
from whisperd.spool.durable import Folder


class Blind(Leases):
    """A filesystem without leases."""

    def are_trusted(self, folder):
        return False


class Connected:
    """Answers for everybody alike."""

    def __init__(self, answer):
        self.is_connected = lambda uid: answer


@pytest.fixture
def verdict(tmp_path):
    def judged(name, quiet_seconds, *, options=OPTIONS, leases=None, seen=None, connected=False):
        seen = seen or Signature.of(os.lstat(tmp_path / name))
        with Folder(tmp_path) as folder:
            return judge(
                folder,
                name,
                seen,
                quiet_seconds=quiet_seconds,
                options=options,
                leases=leases or Leases(),
                sessions=Connected(connected),
            )

    return judged


def test_with_all_three_a_moment_of_quiet_is_enough(tmp_path, verdict):
    """A closed WAV that is all there."""
    tone(tmp_path / "a.wav")

    assert verdict("a.wav", 0.25) == Take()
    assert verdict("a.wav", 0.1) == Wait("changed 0 s ago", 0.15)


def test_a_client_that_is_still_connected_may_come_back(tmp_path, verdict):
    """To check, date or rename what it has closed: it has the long quiet time for that, and no longer."""
    tone(tmp_path / "a.wav")

    waiting = verdict("a.wav", 0.25, connected=True)
    assert waiting.reason == "complete; its owner is still connected, and the client may come back to it"
    assert waiting.seconds == 0.5  # soon, for the connection may end at any moment
    assert verdict("a.wav", 4.75, connected=True).seconds == 0.25
    assert verdict("a.wav", 5.0, connected=True) == Take()


@pytest.mark.parametrize("quiet", [0.3, 5.0, 1e6])
def test_an_open_file_is_never_taken(tmp_path, verdict, quiet):
    """However long it is silent, and however complete it looks."""
    with tone(tmp_path / "a.wav").open("r+b"):
        waiting = verdict("a.wav", quiet)

    assert (waiting.reason, waiting.held_back) == ("still open for writing", True)
    assert waiting.seconds <= 30.0


@pytest.mark.parametrize("why", ["no leases", "no promise"])
def test_with_one_test_missing_the_long_quiet_time_counts(tmp_path, verdict, why):
    """Without a lease a writer may just be slow; without a promise the sender may come back."""
    if why == "no promise":
        (tmp_path / "a.wav").write_bytes(b"\x12\x34" * 5000)
    else:
        tone(tmp_path / "a.wav")
    leases = Blind() if why == "no leases" else None

    assert verdict("a.wav", 4.0, leases=leases) == Wait("changed 4 s ago", 1.0)
    assert verdict("a.wav", 5.0, leases=leases) == Take()


def test_a_short_file_waits_and_then_fails_with_how_short_it_is(tmp_path, verdict):
    """The second part may come within the hour; a plausible transcript of the first would be a silent loss."""
    whole = tone(tmp_path / "a.wav", seconds=10.0).read_bytes()
    (tmp_path / "a.wav").write_bytes(whole[: len(whole) * 37 // 100])

    assert verdict("a.wav", 3599.0).reason == "header promises 320 kB, 118 kB here"
    failure = verdict("a.wav", 3600.0).failure
    assert (failure.code, failure.message) == (
        "truncated",
        "upload looks truncated: 36 % of what its header promises",
    )
    (tmp_path / "a.wav").write_bytes(whole)
    assert verdict("a.wav", 0.25) == Take()


def test_a_file_with_an_impossible_header_does_not_wait_for_an_hour(tmp_path, verdict):
    """Seventeen bytes that state 216 MB: nothing will complete them, and decoding tells what is wrong."""
    (tmp_path / "a.mp3").write_bytes(b"ID3\x03\0\0\xe7\x7f\x7f\x7f" + bytes(7))

    assert verdict("a.mp3", 4.0) == Wait("changed 4 s ago", 1.0)
    assert verdict("a.mp3", 5.0) == Take()


def test_room_that_was_reserved_and_not_written_is_waited_for(tmp_path, verdict):
    """Explorer sets the full size first: the header is right, the size is right, and the sound is a hole."""
    whole = tone(tmp_path / "a.wav", seconds=60.0).read_bytes()
    with (tmp_path / "a.wav").open("wb") as file:
        file.write(whole[:400_000])
        file.truncate(len(whole))

    written = (400_000 + 4095) // 4096 * 4096  # whole blocks, on any filesystem that tests run on

    assert verdict("a.wav", 10.0).reason == f"{written / 1000:.0f} kB of 1.9 MB written so far"
    assert verdict("a.wav", 3600.0) == Take()  # a recording of silence may well be stored like this


@pytest.mark.parametrize("written", [(0, 2), (0, 1, 3), (0, 2, 3)], ids=["of three", "of four", "of five"])
def test_a_hole_inside_is_waited_for(tmp_path, verdict, written):
    """Pieces come out of order, and each is closed: size and header are right at once, and sound is missing."""
    whole = tone(tmp_path / "whole.wav", seconds=40.0).read_bytes()
    piece = 65_536 * 4
    assert len(whole) > piece * written[-1]
    with (tmp_path / "a.wav").open("wb") as file:
        for number in written:
            file.seek(number * piece)
            file.write(whole[number * piece :][: len(whole) if number == written[-1] else piece])

    assert verdict("a.wav", 0.25).reason.startswith("changed 0 s ago, nothing is written in it at ")
    assert isinstance(verdict("a.wav", 59.0), Wait)
    assert verdict("a.wav", 60.0) == Take()  # silence that was copied without its zeros looks the same
    (tmp_path / "a.wav").write_bytes(whole)
    assert verdict("a.wav", 0.25) == Take()


@pytest.mark.parametrize("companion", [f"a.wav{suffix}" for suffix in UNFINISHED])
def test_a_companion_holds_a_file_back(tmp_path, verdict, companion):
    """Download programs keep their state beside the file that they fill."""
    tone(tmp_path / "a.wav")
    (tmp_path / companion).touch()

    assert verdict("a.wav", 100.0).reason == f"waiting for {companion}"
    (tmp_path / companion).unlink()
    assert verdict("a.wav", 100.0) == Take()


def test_a_done_marker_can_be_required(tmp_path, verdict):
    """Whoever sends it knows best."""
    tone(tmp_path / "a.wav")
    options = OPTIONS.evolve(done_marker=".done")

    assert verdict("a.wav", 100.0, options=options).reason == "waiting for a.wav.done"
    (tmp_path / "a.wav.done").touch()
    assert verdict("a.wav", 100.0, options=options) == Take()


def test_an_empty_file_waits_longer(tmp_path, verdict):
    """Browsers and Finder make a placeholder long before the data comes."""
    (tmp_path / "a.wav").touch()

    assert verdict("a.wav", 59.0).reason == "changed 59 s ago, it is still empty"
    assert verdict("a.wav", 60.0) == Take()


def test_what_is_not_as_it_was_seen_is_not_judged(tmp_path, verdict):
    """Gone, replaced by a symlink, or written to since."""
    tone(tmp_path / "a.wav")
    before = Signature.of(os.lstat(tmp_path / "a.wav"))
    tone(tmp_path / "a.wav", seconds=2.0)
    assert verdict("a.wav", 100.0, seen=before) == Changed()

    (tmp_path / "a.wav").unlink()
    assert verdict("a.wav", 100.0, seen=before) == Changed()

    (tmp_path / "a.wav").symlink_to("/etc/passwd")
    assert verdict("a.wav", 100.0, seen=before) == Changed()

    (tmp_path / "a.wav").unlink()
    os.mkfifo(tmp_path / "a.wav")
    assert verdict("a.wav", 100.0, seen=before) == Changed()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"Ask her about the budget.\n"),
        ("Scan.PDF", b"%PDF-1.7\n"),
        ("cover.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0"),
        ("empty.docx", b""),
        ("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        ("picture.webp", b"RIFF\x1a\0\0\0WEBPVP8L"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path, verdict, name, content):
    """At once, and with what to do if it is one after all."""
    (tmp_path / name).write_bytes(content)
    refused = verdict(name, 0.3)

    assert isinstance(refused, Refuse)
    assert refused.reason.startswith("this is no recording")
    assert "rename it" in refused.reason


@pytest.mark.parametrize("name", ["talk.txt", "talk", "talk.mp3.pdf", "talk.weird"])
def test_a_recording_is_taken_whatever_its_name(tmp_path, verdict, name):
    """Its content counts; so does that of a name that says nothing, which the worker then judges."""
    tone(tmp_path / name)

    assert verdict(name, 5.0) == Take()


def test_what_no_name_tells_is_taken(tmp_path, verdict):
    """Only decoding can tell what is in it, and its failure then says so."""
    for name in ("a.mp3", "a.bin", "a"):
        (tmp_path / name).write_bytes(b"no recording\n" * 100)

        assert verdict(name, 5.0) == Take()


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    """With what has to be done."""
    seen = Signature.of(os.lstat(tone(tmp_path / "a.wav")))

    def denied(*arguments, **keywords):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with Folder(tmp_path) as folder:
        monkeypatch.setattr(os, "open", denied)
        found = judge(
            folder,
            "a.wav",
            seen,
            quiet_seconds=9.0,
            options=OPTIONS,
            leases=Leases(),
            sessions=Connected(answer=False),
        )
        monkeypatch.undo()

    assert found == Refuse("permission denied: whisperd cannot read it; the file needs g+r")


@pytest.fixture
def original(tmp_path):
    return tone(tmp_path / "original.wav")


@pytest.fixture
def look(original):
    job = Job("id", "a.wav", "a.wav", original.name, Signature.of(original.stat()), "", "")
    sha256 = hashlib.sha256(original.read_bytes()).hexdigest()
    return lambda: last(recheck(original.parent, job, sha256))


def last(steps):
    return list(steps)[-1]


def flipped(path):
    data = path.read_bytes()
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("act", "state"),
    [
        pytest.param(lambda path: None, OriginalState.SAME, id="nothing"),
        pytest.param(lambda path: path.chmod(0o600), OriginalState.SAME, id="chmod"),
        pytest.param(lambda path: os.utime(path, (1, 1)), OriginalState.SAME, id="an old mtime set"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()), OriginalState.SAME, id="the same written again"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes() + b"x"), OriginalState.CHANGED, id="longer"),
        pytest.param(lambda path: path.write_bytes(flipped(path)), OriginalState.CHANGED, id="as long, other content"),
    ],
)
def test_only_content_counts(original, look, act, state):
    """An hour of work is not thrown away for a chmod, nor kept for a file that it is not about."""
    act(original)

    assert look() is state


def test_a_changed_file_with_its_times_set_back_is_changed(original, look):
    """As Explorer does at the end of a copy; ctime alone tells."""
    before = original.stat()
    original.write_bytes(flipped(original))
    os.utime(original, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert look() is OriginalState.CHANGED


def test_a_writer_that_has_not_written_yet_is_seen(original, look):
    """The result waits for it."""
    with original.open("r+b"):
        assert look() is OriginalState.WRITER
    assert look() is OriginalState.SAME


def test_a_writer_that_goes_on_appending_does_not_keep_the_reader(original, monkeypatch):
    """The supervisor reads here: it must not read what comes while it does."""
    job = Job("id", "a.wav", "a.wav", original.name, Signature.of(original.stat()), "", "")
    sha256 = hashlib.sha256(original.read_bytes()).hexdigest()
    os.utime(original, (1, 1))
    pread, reads = os.pread, []

    def appended(fd, length, at):
        reads.append(at)
        assert len(reads) < 100
        with original.open("ab") as file:
            file.write(bytes(100_000))
        return pread(fd, length, at)

    monkeypatch.setattr(os, "pread", appended)

    assert last(recheck(original.parent, job, sha256)) is OriginalState.CHANGED
    assert len(reads) == 1


def test_what_is_written_behind_the_reader_is_not_missed(original, monkeypatch):
    """Reading takes many turns of the loop: a change to what was read already must not count as the same."""
    job = Job("id", "a.wav", "a.wav", original.name, Signature.of(original.stat()), "", "")
    sha256 = hashlib.sha256(original.read_bytes()).hexdigest()
    monkeypatch.setattr("whisperd.intake.complete.BLOCK_BYTES", 1000)
    os.utime(original, (1, 1))
    steps = recheck(original.parent, job, sha256)
    assert next(steps) is None
    data = original.read_bytes()
    original.write_bytes(b"XIFF" + data[4:])

    assert last(steps) is OriginalState.WRITER
    assert last(recheck(original.parent, job, sha256)) is OriginalState.CHANGED
