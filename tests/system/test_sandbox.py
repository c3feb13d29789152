"""Each line of the unit's sandbox, tried from inside: what it forbids fails, what the daemon needs works."""

import json
import re

import pytest
from support import sandbox_probe
from support.service import CLONE, PREFIX, Service, program_binds, provide_program
from support.systemd_lab import SystemdLab

pytestmark = pytest.mark.systemd

CAP_LEASE = f"{1 << 28:016x}"
EXPECTED = {
    "internet socket": "EAFNOSUPPORT",
    "interfaces": ["lo"],
    "write outside": "EROFS",
    "write own program": "EROFS",
    "read a home": "EACCES",
    "read the tmp of others": "ENOENT",
    "see a device": False,
    "see other processes": False,
    "effective capabilities": CAP_LEASE,
    "possible capabilities": CAP_LEASE,
    "new privileges forbidden": "1",
    "setuid bit": "EPERM",
    "user namespace": "EPERM",
    "trace": "EPERM",
    "change of owner": "EPERM",
    "core dumps": 0,
    "umask": "0o7",
    "lease on a foreign file": 0,
    "choice of cores": None,
    "memory file": True,
    "setgid of a new folder": True,
    "claim": True,
    "cache": None,
    "compiled code": "64 2",
}


@pytest.fixture(scope="module")
def outcomes(_bootable):
    """Run the probes in the unit as install.sh sets it up, with things beside it that it must not reach."""
    with SystemdLab(program_binds()) as lab:
        provide_program(lab)
        lab.run("systemd-sysusers", CLONE / "systemd/whisperd.sysusers")
        lab.run("systemd-tmpfiles", "--create", CLONE / "systemd/whisperd.tmpfiles")
        lab.run(
            "sh",
            "-c",
            "mkdir -m 777 /srv/open /home/open && chmod 777 /opt/whisperd && mknod -m 666 /dev/lab-device c 1 3",
        )
        lab.run("sh", "-c", "echo x | tee /home/open/file /tmp/file /var/spool/whisperd/inbox/of-root")
        service = Service(lab)
        service.configure()
        result = f"{service.root}/outbox/result.json"
        probe = f"{PREFIX}/bin/python {CLONE}/tests/support/sandbox_probe.py {result}"
        service.override(Type="exec", ExecStart=f"\nExecStart={probe}", WatchdogSec="0", RemainAfterExit="yes")
        service.install()
        lab.wait_until("the probes are through", lambda: service.state("SubState") in {"exited", "failed"}, 60)
        yield json.loads(lab.host_path(result).read_text())


@pytest.mark.parametrize("probe", sandbox_probe.PROBES, ids=lambda name: re.sub(r"\W", "-", name))
def test_sandbox(outcomes, probe):
    """What came of a probe is what the unit promises."""
    assert outcomes[probe] == EXPECTED[probe]
