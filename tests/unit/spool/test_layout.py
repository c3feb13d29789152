"""The tree of one spool: made, proved usable, and owned by one process."""

import os
import pwd
import stat
import subprocess
from pathlib import Path

import pytest
from support.spool import nest

from whisperd.core.errors import EXIT_BOOT, EXIT_LOCKED, BootError, SpoolLocked
from whisperd.spool import status_file
from whisperd.spool.layout import Layout, files

ROOMS = [".work", "done", "failed", "inbox", "outbox"]


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path / "spool")
    layout.create()
    return layout


@pytest.fixture
def elsewhere(tmp_path):
    """A directory on another filesystem."""
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second filesystem at /dev/shm")
    directory = other / f"whisperd-test-{os.getpid()}"
    directory.mkdir()
    yield directory
    directory.rmdir()


def litter(layout):
    """Every file in the tree."""
    return [path for path in layout.root.rglob("*") if not path.is_dir()]


def test_the_tree_is_made_and_a_second_time_left_alone(layout):
    """Parents included; .work is private, because the recordings in it are."""
    (layout.inbox / "a.mp3").touch()
    layout.create()

    assert sorted(os.listdir(layout.root)) == ROOMS
    assert stat.S_IMODE(layout.work.stat().st_mode) == 0o700
    assert litter(layout) == [layout.inbox / "a.mp3"]


def test_a_new_root_is_closed_to_others_and_one_that_is_there_is_left_alone(tmp_path, layout):
    """Whatever the umask of who starts the daemon is, and whoever that is."""
    (tmp_path / "open").mkdir(mode=0o755)
    Layout(tmp_path / "open").create()

    assert stat.S_IMODE(layout.root.stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be told")
def test_root_does_not_run_the_daemon_of_another_user(layout):
    """The service could not use the files of root afterwards."""
    os.chown(layout.work, pwd.getpwnam("nobody").pw_uid, -1)

    with pytest.raises(BootError, match="belongs to the user nobody") as caught:
        layout.create()

    assert "sudo -u nobody whisperd run" in caught.value.hint


def test_a_root_that_cannot_be_made_stops_the_daemon_with_a_hint(tmp_path):
    """Here a file stands in its way."""
    (tmp_path / "file").touch()

    with pytest.raises(BootError, match="Not a directory") as caught:
        Layout(tmp_path / "file" / "spool").create()

    assert caught.value.hint
    assert caught.value.exit_code == EXIT_BOOT


@pytest.mark.parametrize("room", ["inbox", "outbox", "done", "failed"])
def test_a_folder_on_another_filesystem_stops_the_daemon(layout, elsewhere, room):
    """A transition that is no rename could be cut off in the middle; and the probe leaves nothing behind."""
    (layout.root / room).rmdir()
    (layout.root / room).symlink_to(elsewhere)

    with pytest.raises(BootError, match="one mount"):
        layout.create()

    assert litter(layout) == []
    assert os.listdir(elsewhere) == []


def test_one_root_has_one_owner(layout):
    """The second daemon is told so and exits with a status of its own."""
    assert not layout.is_locked()
    with layout.lock():
        assert layout.is_locked()
        with pytest.raises(SpoolLocked, match="another whisperd") as caught, layout.lock():
            pass

    assert caught.value.exit_code == EXIT_LOCKED
    assert not layout.is_locked()
    with layout.lock():
        assert layout.is_locked()


def test_a_spool_that_was_never_used_is_not_locked(tmp_path):
    """`whisperd status` may ask before there is one."""
    assert not Layout(tmp_path).is_locked()


def test_half_written_files_of_a_killed_daemon_are_removed(layout):
    """Staging holds nothing else."""
    (layout.staging / ".0123456789abcdef.tmp").write_bytes(b"half")
    layout.empty_staging()

    assert os.listdir(layout.staging) == []


def test_the_room_left_is_that_of_the_filesystem_of_the_root(layout):
    """As statvfs(3) counts it for ordinary users."""
    status = os.statvfs(layout.root)

    assert layout.free_bytes() == pytest.approx(status.f_bavail * status.f_frsize, rel=0.05)


def test_every_place_is_below_the_root(layout):
    """So that one ReadWritePaths= is enough."""
    places = [layout.inbox, layout.outbox, layout.done, layout.failed, layout.staging, layout.job_directory("1")]

    assert all(place.is_relative_to(layout.root) for place in places)


def test_an_outbox_nested_beyond_all_measure_is_walked(tmp_path):
    """Its group may write there: a chain of folders must not end the daemon, which reads it all at its start."""
    layout = Layout(tmp_path)
    layout.create()
    nest(layout.outbox, 1500)
    (layout.outbox / "a.wav.status.json").write_text("{}")
    (layout.outbox / "folder").symlink_to(layout.inbox)

    try:
        assert sorted(filter(None, files(layout.outbox))) == [((), "a.wav.status.json"), ((), "folder")]
        assert list(filter(None, status_file.find_all(layout))) == [((), "a.wav.status.json")]
    finally:  # shutil.rmtree, by which pytest removes what earlier runs have left, recurses and would fail
        subprocess.run(["rm", "-rf", layout.outbox / "d"], check=True)
