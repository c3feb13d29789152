"""Complete: quiet, no writer, and a container that keeps its promise; where one is missing, its reason."""

import errno
import os

import pytest
from support.daemon import tone
from support.options import INTAKE as OPTIONS

from whisperd.core.job import Signature
from whisperd.intake.complete import Changed, Refuse, Take, Wait, judge
from whisperd.intake.ignore import UNFINISHED
from whisperd.intake.lease import Leases
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
