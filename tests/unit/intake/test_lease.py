"""The kernel's word on who has a file open for writing."""

import mmap
import os
import signal
import subprocess
import sys

import pytest

from whisperd.intake import lease
from whisperd.intake.lease import Leases, has_writer, ignore_lease_breaks
from whisperd.intake.watch import Watch
from whisperd.spool.durable import Folder


@pytest.fixture
def upload(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"x" * 8192)
    fd = os.open(path, os.O_RDONLY)
    yield path, fd
    os.close(fd)


@pytest.fixture(autouse=True)
def _restored_signal():
    before = signal.getsignal(signal.SIGIO)
    yield
    signal.signal(signal.SIGIO, before)


def test_nobody_sees_how_a_directory_is_tried(tmp_path):
    """A file with a name would pass for an upload, if the daemon died just then."""
    watch = Watch(tmp_path)
    with Folder(tmp_path) as folder:
        watch.add((), folder)
        assert Leases().are_trusted(folder)

    assert watch.drain().files == set()
    watch.close()


def test_a_closed_file_has_no_writer(upload):
    """Other readers do not count."""
    path, fd = upload
    with path.open("rb"):
        assert has_writer(fd) is False


def test_an_open_file_has_a_writer_until_it_is_closed(upload):
    """Whether or not a byte is written."""
    path, fd = upload
    with path.open("r+b"):
        assert has_writer(fd) is True
    assert has_writer(fd) is False


def test_a_mapping_that_can_write_is_a_writer(upload):
    """Its descriptor may be closed long ago, and no event tells of it."""
    path, fd = upload
    with path.open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
    try:
        assert has_writer(fd) is True
    finally:
        mapping.close()
    assert has_writer(fd) is False


def test_a_writer_in_another_process_is_seen(upload):
    """That is what smbd and sftp-server are."""
    path, fd = upload
    program = f"f = open({str(path)!r}, 'r+b'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert has_writer(fd) is True
        process.communicate(b"\n")
    assert has_writer(fd) is False


def test_no_lease_is_kept(upload):
    """Or the next writer would have to wait."""
    path, fd = upload
    has_writer(fd)

    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))  # BlockingIOError if a lease were held


def test_a_lease_that_is_broken_does_not_end_the_daemon():
    """The default action of SIGIO ends the process."""
    ignore_lease_breaks()

    os.kill(os.getpid(), signal.SIGIO)


def test_a_local_folder_is_trusted(tmp_path, upload):
    """Asked once, with a file of our own that leaves no trace."""
    _, fd = upload
    with Folder(tmp_path) as folder:
        leases = Leases()

        assert leases.has_writer(folder, fd) is False
        assert os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(False, id="granted while open, as for a writer on another machine"),
        pytest.param(True, id="refused when closed, as by CIFS without an oplock"),
        pytest.param(None, id="no leases, or not ours to ask"),
    ],
)
def test_a_folder_where_leases_lie_is_not_trusted(tmp_path, upload, monkeypatch, answer):
    """Then nothing is concluded, and time must do."""
    _, fd = upload
    monkeypatch.setattr(lease, "has_writer", lambda fd: answer)
    with Folder(tmp_path) as folder:
        assert Leases().has_writer(folder, fd) is None


def test_a_network_filesystem_is_not_trusted(tmp_path, upload, monkeypatch):
    """The writer that matters is on another machine."""
    _, fd = upload
    monkeypatch.setattr(lease, "is_remote", lambda fd: True)
    with Folder(tmp_path) as folder:
        assert Leases().has_writer(folder, fd) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_another_users_file_is_asked_about_in_vain(upload):
    """Without CAP_LEASE only the owner may ask; that is no answer, not an error."""
    path, _ = upload
    path.chmod(0o644)
    for parent in path.parents:
        if parent.stat().st_mode & 0o005 != 0o005:
            parent.chmod(parent.stat().st_mode | 0o005)
    program = (
        "import os; from whisperd.intake.lease import has_writer; os.setgid(65534); os.setuid(65534);"
        f"print(has_writer(os.open({str(path)!r}, os.O_RDONLY)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert ran.stdout.strip() == "None", ran.stderr
