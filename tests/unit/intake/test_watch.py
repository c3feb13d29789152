"""The watch on a real directory: what it tells, and what it admits."""

import os

import pytest

from whisperd.intake.scan import scan
from whisperd.intake.watch import COOKIE, COOKIE_SECONDS, Watch


@pytest.fixture
def inbox(tmp_path):
    (tmp_path / "inbox/alice").mkdir(parents=True)
    return tmp_path / "inbox"


@pytest.fixture
def watch(inbox):
    opened = Watch(inbox)
    walk(inbox, opened)
    yield opened
    opened.close()


def walk(inbox, watch):
    return [found.name for found in scan(inbox, lambda name: name.startswith("."), (), watch.add) if found]


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda path, other: path.write_bytes(b"x"), id="written"),
        pytest.param(lambda path, other: other.rename(path), id="moved in"),
        pytest.param(lambda path, other: path.hardlink_to(other), id="linked"),
        pytest.param(lambda path, other: path.symlink_to(other), id="symlink"),
    ],
)
def test_a_file_that_appears_is_told_of(watch, inbox, tmp_path, act):
    """By name, in whichever folder, and however it came."""
    (tmp_path / "other").touch()
    act(inbox / "alice/a.wav", tmp_path / "other")

    assert watch.drain().files == {"alice/a.wav"}
    assert watch.drain().files == set()


def test_reading_is_not_told_of(watch, inbox):
    """Our own looks would fill the queue."""
    (inbox / "a.wav").write_bytes(b"x")
    watch.drain()
    (inbox / "a.wav").read_bytes()

    assert watch.drain().files == set()


def test_a_folder_that_appears_is_told_of_and_watched_once_it_is_walked(watch, inbox):
    """Between its appearance and the watch on it only the walk can see."""
    (inbox / "bob/deep").mkdir(parents=True)
    (inbox / "bob/deep/early.wav").touch()

    assert watch.drain().folders == {"bob"}
    assert walk(inbox, watch) == ["bob/deep/early.wav"]
    (inbox / "bob/deep/late.wav").touch()
    assert watch.drain().files == {"bob/deep/late.wav"}


def test_a_folder_that_is_renamed_speaks_under_its_new_name(watch, inbox):
    """The kernel watches the folder, not the path."""
    (inbox / "alice").rename(inbox / "bob")
    assert watch.drain().folder_gone
    walk(inbox, watch)
    (inbox / "bob/a.wav").touch()

    assert watch.drain().files == {"bob/a.wav"}


def test_a_folder_that_is_moved_out_is_silent(watch, inbox, tmp_path):
    """What happens there is nobody's business any more."""
    (inbox / "alice").rename(tmp_path / "alice")
    watch.drain()
    (tmp_path / "alice/a.wav").touch()

    assert watch.drain().files == set()


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_the_loss_of_the_inbox_is_told(watch, inbox, tmp_path, how):
    """A watch on a directory that is not the inbox sees nothing."""
    (inbox / "alice").rmdir()
    if how == "moved":
        inbox.rename(tmp_path / "old")
    else:
        inbox.rmdir()

    assert watch.drain().broken
    assert not watch.is_of(inbox)


def test_an_inbox_in_the_place_of_the_old_one_is_another(watch, inbox, tmp_path):
    """The path is the same, the directory is not."""
    assert watch.is_of(inbox)
    (tmp_path / "new").mkdir()
    (inbox / "alice").rmdir()
    os.rename(tmp_path / "new", inbox)

    assert not watch.is_of(inbox)


def test_the_cookie_comes_back_and_is_taken_away(watch, inbox):
    """It proves that events arrive, and is neither a hint nor left lying about."""
    watch.plant_cookie(0.0)
    assert (inbox / COOKIE).exists()
    told = {name for name in watch.drain().files if not name.endswith(".tmp")}  # of which it was made

    assert told == set()
    assert watch.is_proven(1000.0)
    assert not (inbox / COOKIE).exists()


def test_a_cookie_that_does_not_come_back_proves_the_watch_dead(inbox):
    """Nothing was added to this one, as if the kernel had dropped it."""
    watch = Watch(inbox)
    watch.plant_cookie(0.0)
    watch.drain()

    assert watch.is_proven(COOKIE_SECONDS - 0.1)
    assert not watch.is_proven(COOKIE_SECONDS)
    watch.close()
    assert not (inbox / COOKIE).exists()
