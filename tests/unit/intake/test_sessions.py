"""Who is connected: from the titles of processes, or from logind where processes are hidden."""

import os

import pytest

from whisperd.intake.sessions import Sessions

ME, SOMEBODY_ELSE = os.getuid(), os.getuid() + 1


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
    monkeypatch.setattr("whisperd.intake.sessions.PROCESSES_MAX", 1)
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
    monkeypatch.setattr("whisperd.intake.sessions.time.monotonic", lambda: now)
    asked = sessions()
    assert not asked.is_connected(ME)
    processes(7, b"sftp-server\0")
    assert not asked.is_connected(ME)
    now += 0.2
    assert asked.is_connected(ME)
