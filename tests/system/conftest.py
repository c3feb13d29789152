import pytest
from support.service import Service, program_binds, provide_program
from support.sshd import Sshd
from support.systemd_lab import SystemdLab, unavailable


@pytest.fixture(scope="session")
def _bootable():
    if reason := unavailable():
        pytest.skip(f"no systemd to boot: {reason}")


@pytest.fixture
def lab(_bootable):
    """A machine with whisperd's program on it and nothing of its service."""
    with SystemdLab(program_binds()) as lab:
        provide_program(lab)
        yield lab


@pytest.fixture
def service(lab):
    """whisperd.service, configured with the scripted engine but not yet installed."""
    service = Service(lab)
    service.configure()
    return service


@pytest.fixture(scope="module")
def sshd(spool):
    """An SSH server beside the spool of a module's fixture `spool`."""
    with Sshd(spool) as sshd:
        yield sshd


@pytest.fixture(scope="module")
def daemon(spool, sshd):
    """The daemon of that spool, once the server is there."""
    return spool.daemon


@pytest.fixture
def alice(spool, sshd):
    """A member who uploads over SSH."""
    return spool.member
