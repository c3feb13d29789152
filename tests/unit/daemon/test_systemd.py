"""What the service manager hears, and what becomes of the daemon when it does not listen."""

import socket
from contextlib import closing

import pytest

from whisperd.daemon.systemd import STATUS_EVERY_SECONDS, Notifier


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """The service manager's end of the notification socket."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield manager


@pytest.fixture
def notifier(manager):
    """A daemon's end of it."""
    notifier = Notifier()
    yield notifier
    notifier._systemd.socket.close()


def heard(manager):
    """Everything that waits in the socket."""
    said = []
    while True:
        try:
            said.append(manager.recv(4096).decode())
        except BlockingIOError:
            return said


def fill(notifier):
    """Say more than the socket holds; when the next status is due."""
    now = 0.0
    while notifier.status(f"at {now}", now) is None:
        now += STATUS_EVERY_SECONDS
    return now + STATUS_EVERY_SECONDS


@pytest.mark.timeout(20)
def test_a_manager_that_does_not_read_does_not_stop_the_daemon(notifier):
    """A datagram that finds the queue full is given up, not waited for."""
    again_at = fill(notifier)

    assert notifier.status("a new line", again_at) == again_at + STATUS_EVERY_SECONDS


@pytest.mark.timeout(20)
def test_what_must_arrive_is_said_again(manager, notifier):
    """READY and STOPPING change what the manager does, so they are kept until it reads."""
    fill(notifier)
    notifier.ready()
    notifier.stopping()
    before = heard(manager)
    notifier.alive(0.0)

    assert "READY=1" not in before
    assert heard(manager) == ["READY=1", "STOPPING=1"]


def test_a_status_that_was_not_heard_is_said_when_there_is_room(manager, notifier):
    """The line that systemctl shows is the newest one, however long nobody read."""
    now = fill(notifier)
    notifier.status("the newest", now)
    heard(manager)
    again = notifier.status("the newest", now + STATUS_EVERY_SECONDS)

    assert again is None
    assert heard(manager) == ["STATUS=the newest"]


def test_a_manager_that_has_gone_is_no_error(manager, notifier):
    """Its socket is closed when the daemon is run by hand under something that ended."""
    manager.close()
    notifier.ready()

    assert notifier.status("working", 0.0) is None


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # sdnotify leaves the socket to the collector
def test_a_socket_that_is_not_there_is_no_error(tmp_path, monkeypatch):
    """The daemon works without a service manager, whatever an environment claims."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))

    assert Notifier().status("working", 0.0) is None
