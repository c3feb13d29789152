"""Who may still write: the kernel's word on who has a file open, and who is connected."""

import mmap
import os
import signal
import subprocess
import sys

import pytest

from whisperd.intake import writers
from whisperd.intake.watch import Watch
from whisperd.intake.writers import Leases, Sessions, has_writer, ignore_lease_breaks
from whisperd.spool.durable import Folder

ME, SOMEBODY_ELSE = os.getuid(), os.getuid() + 1


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
    monkeypatch.setattr(writers, "has_writer", lambda fd: answer)
    with Folder(tmp_path) as folder:
        assert Leases().has_writer(folder, fd) is None


def test_a_network_filesystem_is_not_trusted(tmp_path, upload, monkeypatch):
    """The writer that matters is on another machine."""
    _, fd = upload
    monkeypatch.setattr(writers, "is_remote", lambda fd: True)
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
        "import os; from whisperd.intake.writers import has_writer; os.setgid(65534); os.setuid(65534);"
        f"print(has_writer(os.open({str(path)!r}, os.O_RDONLY)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert ran.stdout.strip() == "None", ran.stderr


@pytest.fixture
def processes(tmp_path):
    """A /proc with an init, to which processes of this user are added."""
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/cmdline").write_bytes(b"/sbin/init\0")

    def add(number, cmdline):
        (tmp_path / f"proc/{number}").mkdir()
        (tmp_path / f"proc/{number}/cmdline").write_bytes(cmdline)

    (tmp_path / "proc/meminfo").touch()
    return add


@pytest.fixture
def sessions(tmp_path):
    return lambda: Sessions(tmp_path / "proc", tmp_path / "sessions")


@pytest.mark.parametrize(
    "cmdline",
    [
        b"/usr/lib/openssh/sftp-server\0",
        b"sftp-server\0-u\0002\0",
        b"sshd: alice@notty\0\0\0",
        b"sshd: alice@internal-sftp",
        b"sshd-session: alice@example.org@notty\0",
        b"/usr/sbin/vsftpd\0/etc/vsftpd.conf\0",
        b"proftpd: alice - 192.0.2.7: IDLE\0",
        b"pure-ftpd (UPLOAD)\0",
    ],
)
def test_a_process_that_serves_a_client(processes, sessions, cmdline):
    """It is its owner who is connected, and nobody else."""
    processes(7, cmdline)

    assert sessions().is_connected(ME)
    assert not sessions().is_connected(SOMEBODY_ELSE)


@pytest.mark.parametrize(
    "cmdline",
    [
        b"",
        b"sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups\0",
        b"sshd: alice [priv]\0",
        b"sshd: alice@pts/0\0",
        b"/usr/bin/sftp\0alice@example.org\0",
        b"ssh\0alice@notty\0",
        b"/usr/bin/rclone\0serve\0sftp-server\0",
        b"sftp-server-exporter\0",
        b"/bin/cp\0a.wav\0/var/spool/whisperd/inbox/\0",
    ],
)
def test_a_process_that_serves_none(processes, sessions, cmdline):
    """Neither the listener, nor a terminal, nor a client of one's own."""
    processes(7, cmdline)

    assert not sessions().is_connected(ME)


LOGIN = "UID={uid}\nUSER=alice\nACTIVE=1\nSTATE=active\nREMOTE=1\nTYPE=tty\nREMOTE_HOST=192.0.2.7\nSERVICE=sshd\n"


@pytest.mark.parametrize(
    ("changes", "connected"),
    [
        ({}, True),
        ({"REMOTE=1": "REMOTE=0"}, True),  # through a tunnel
        ({"SERVICE=sshd": "SERVICE=vsftpd"}, True),
        ({"STATE=active": "STATE=closing"}, False),
        ({"REMOTE=1": "REMOTE=0", "SERVICE=sshd": "SERVICE=login"}, False),
        ({"UID=": "UID=1"}, False),
        ({LOGIN[:3]: "not a session of logind\n"}, False),
    ],
)
def test_where_processes_are_hidden_logind_tells(tmp_path, sessions, changes, connected):
    """The shipped unit hides them."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "sessions").mkdir()
    text = LOGIN
    for old, new in changes.items():
        text = text.replace(old, new)
    (tmp_path / "sessions/4").write_text(text.format(uid=ME))
    os.mkfifo(tmp_path / "sessions/4.ref")

    assert sessions().is_connected(ME) is connected
    assert not sessions().is_connected(SOMEBODY_ELSE)


def test_too_many_processes_are_not_looked_at(tmp_path, processes, sessions, monkeypatch):
    """The loop has no time for that; logind tells at once."""
    monkeypatch.setattr("whisperd.intake.writers.PROCESSES_MAX", 1)
    processes(7, b"sftp-server\0")
    (tmp_path / "sessions").mkdir()

    assert not sessions().is_connected(ME)


def test_where_nothing_tells_anybody_may_be_connected(tmp_path, sessions):
    """Waiting a little longer costs less than a recording that is sent again."""
    (tmp_path / "proc").mkdir()

    assert sessions().is_connected(ME)


def test_an_answer_is_kept_for_a_moment(processes, sessions, monkeypatch):
    """A thousand files that arrive at once are one look at the processes."""
    now = 100.0
    monkeypatch.setattr("whisperd.intake.writers.time.monotonic", lambda: now)
    asked = sessions()
    assert not asked.is_connected(ME)
    processes(7, b"sftp-server\0")
    assert not asked.is_connected(ME)
    now += 0.2
    assert asked.is_connected(ME)
