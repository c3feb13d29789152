"""What is removed from the inbox, and what never is."""

import os
import time

import pytest
from support.spool import Spool

from whisperd.intake.ignore import Ignore
from whisperd.intake.junk import remove_junk

APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X"
A_DAY = 86_400.0


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def removed(spool, *, later=A_DAY + 10.0):
    """What is removed so much later."""
    return {name for name in remove_junk(spool.layout.inbox, Ignore(), now=time.time() + later) if name is not None}


def left(spool):
    inbox = spool.layout.inbox
    return {str(path.relative_to(inbox)) for path in inbox.rglob("*")}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".DS_Store", b"\x00\x00\x00\x01Bud1"),
        ("Thumbs.db", bytes(100_000)),
        ("thumbs.db", b""),
        ("Desktop.ini", b"[.ShellClassInfo]"),
        ("._talk.mp3", APPLE_DOUBLE),
        ("._empty", b""),
        ("~$tes.docx", bytes(162)),
    ],
)
def test_junk_goes_after_a_day_wherever_it_is(spool, name, content):
    """From a folder of somebody's too, which stays though it is empty now."""
    spool.upload(name, content)
    spool.upload(f"alice/{name}", content)
    early = removed(spool, later=A_DAY - 10.0)

    assert (early, removed(spool)) == (set(), {name, f"alice/{name}"})
    assert left(spool) == {"alice"}
    assert Ignore()(name)


@pytest.mark.parametrize(
    "name",
    [
        "talk.mp3",
        "DS_Store",
        ".DS_Store.mp3",
        "Thumbs.db.wav",
        "._talk.mp3.Ab12Cd",
        "~$recording.mp3",
        ".Trash",
        "@eaDir",
        ".hidden",
        ".talk.mp3.Ab12Cd",
        "x.tmp",
        "__MACOSX/.DS_Store",
        ".git/.DS_Store",
    ],
)
def test_what_may_be_of_a_person_stays(spool, name):
    """Recordings and parts of them under any name, and what is in folders that are no business of ours."""
    spool.upload(name, b"RIFF" + bytes(5000))

    assert removed(spool) == set()
    assert name in left(spool)


def test_a_folder_of_junk_goes_when_it_is_empty(spool):
    """Not together with what is in it: what somebody has thrown away, or an index of a disk station, stays."""
    (spool.layout.inbox / ".Trash-1000").mkdir()
    spool.upload("a/@eaDir/.DS_Store")
    spool.upload(".Trashes/501/talk.mp3")
    spool.upload(".Trashes/501/.DS_Store")
    spool.upload("b/@eaDir/talk.mp3@SynoEAStream")
    first = removed(spool)
    second = removed(spool)

    assert first == {".Trash-1000", "a/@eaDir/.DS_Store", ".Trashes/501/.DS_Store"}
    assert second == {"a/@eaDir"}
    assert left(spool) == {
        "a", "b", "b/@eaDir", "b/@eaDir/talk.mp3@SynoEAStream",
        ".Trashes", ".Trashes/501", ".Trashes/501/talk.mp3",
    }  # fmt: skip


def test_no_link_is_followed_and_none_is_removed(spool, tmp_path):
    """Whatever it is called, and wherever it leads."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".DS_Store").touch()
    inbox = spool.layout.inbox
    (inbox / "folder").symlink_to(elsewhere)
    (inbox / ".Trash").symlink_to(elsewhere)
    (inbox / "Thumbs.db").symlink_to(elsewhere / ".DS_Store")
    os.mkfifo(inbox / "desktop.ini")

    assert removed(spool) == set()
    assert left(spool) >= {"folder", ".Trash", "Thumbs.db", "desktop.ini"}
    assert (elsewhere / ".DS_Store").exists()


def test_a_folder_that_is_gone_meanwhile_does_not_hold_up_the_others(spool):
    """Nor does one that is nested deeper than any upload may be; nothing in it is looked at."""
    spool.upload("/".join("d" * 40) + "/.DS_Store")
    spool.upload("z/.DS_Store")
    spool.upload("a/.DS_Store")
    finding = remove_junk(spool.layout.inbox, Ignore(), now=time.time() + A_DAY + 10.0)
    found = [next(finding), next(finding)]  # the inbox has been read, and none of its folders
    (spool.layout.inbox / "a/.DS_Store").unlink()
    (spool.layout.inbox / "a").rmdir()

    assert found == [None, None]
    assert {name for name in finding if name} == {"z/.DS_Store"}


def test_a_large_inbox_is_looked_through_in_steps(spool):
    """The loop of the daemon has other things to do in between."""
    for number in range(450):
        spool.upload(f"{number}.wav", b"")
    steps = list(remove_junk(spool.layout.inbox, Ignore(), now=time.time()))

    assert steps == [None] * 5
