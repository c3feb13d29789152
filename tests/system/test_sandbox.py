"""Each line of the unit's sandbox, tried from inside: what it forbids fails, and would succeed without that line."""

import json
import os
import platform
import re
import socket
from dataclasses import dataclass

import pytest
from support import sandbox_probe
from support.service import CLONE, PREFIX, REPOSITORY, Service, program_binds, provide_program
from support.systemd_lab import SystemdLab

pytestmark = pytest.mark.systemd

USER = "User=whisperd"
STRICT = "ProtectSystem=strict"
FILTER = "SystemCallFilter=@system-service"
ERRNO = "SystemCallErrorNumber=EPERM"
CAP_LEASE = f"{1 << 28:016x}"
CACHES = ["/var/cache/whisperd/numba", "/var/cache/whisperd/triton"]
OTHER = object()  # anything else; it depends on the machine


@dataclass(frozen=True, eq=False)
class Proof:
    """One line of the unit and the attempt that shows what it does.

    Attributes:
        line: as it stands in the unit.
        probe: what is tried; see sandbox_probe.py.
        held: what comes of it in the whole unit.
        without: what comes of it for root without the line.
        beside: other lines that are there both with and without this one.
        alone: what comes of it for root with this line and those `beside`, where that is not `held`.
        instead: what stands in place of the line where it is missing, if the default were as strict.
    """

    line: str
    probe: str
    held: object
    without: object = True
    beside: tuple[str, ...] = ()
    alone: object = None
    instead: str = ""


PROOFS = [
    # whose files, and with which rights
    Proof(USER, "foreign file", "EACCES"),
    Proof("Group=whisperd", "group of a new file", "whisperd", "root"),
    Proof("UMask=0007", "mode of a new file", "0o660", "0o644"),
    Proof("CapabilityBoundingSet=CAP_LEASE", "foreign chown", "EPERM", None),
    Proof("CapabilityBoundingSet=CAP_LEASE", "capabilities", [CAP_LEASE, CAP_LEASE], OTHER),
    Proof("AmbientCapabilities=CAP_LEASE", "lease on a foreign file", True, "EACCES", (USER,)),
    Proof("NoNewPrivileges=yes", "setuid program", False, True, (USER,)),
    Proof("RestrictSUIDSGID=yes", "setuid bit", "EPERM"),
    # what it may take of the machine
    Proof("Nice=10", "niceness", 10, 0, instead="Nice=0"),
    Proof(
        "IOSchedulingClass=best-effort",
        "disk priority",
        "best-effort: prio 7",
        "none: prio 0",
        (),
        "best-effort: prio 4",
    ),
    Proof("IOSchedulingPriority=7", "disk priority", "best-effort: prio 7", "none: prio 0"),
    Proof("LimitNOFILE=8192", "open files", [8192, 8192], OTHER),
    Proof("LimitCORE=0", "core dumps", [0, 0], OTHER),
    Proof("TasksMax=4096", "tasks", 4094, sandbox_probe.MANY_TASKS, instead="TasksMax=infinity"),
    Proof("MemoryMax=90%", "memory limited", True, False),
    # files
    Proof(STRICT, "write elsewhere", "EROFS"),
    Proof(STRICT, "write own program", "EROFS"),
    Proof("ReadWritePaths=/var/spool/whisperd", "write the spool", True, "EROFS", (STRICT,)),
    Proof("StateDirectory=whisperd whisperd/models", "write the weights", True, "EROFS", (STRICT, USER)),
    Proof("CacheDirectory=whisperd", "write the cache", True, "EROFS", (STRICT, USER)),
    Proof(
        "Environment=NUMBA_CACHE_DIR=%C/whisperd/numba TRITON_CACHE_DIR=%C/whisperd/triton XDG_CACHE_HOME=%C/whisperd",
        "cache of compilers",
        CACHES,
        [None, None],
    ),
    Proof("ProtectHome=yes", "home of others", "EACCES", alone="ENOENT"),
    Proof("PrivateTmp=yes", "temporary file of others", "ENOENT"),
    Proof("PrivateDevices=yes", "device", "ENOENT"),
    # network
    Proof("PrivateNetwork=yes", "reach outside", "ECONNREFUSED"),
    Proof("RestrictAddressFamilies=AF_UNIX", "internet socket", "EAFNOSUPPORT"),
    Proof("RestrictAddressFamilies=AF_UNIX", "netlink socket", "EAFNOSUPPORT"),
    Proof("IPAddressDeny=any", "packet", "EAFNOSUPPORT", alone="EPERM"),
    # kernel interfaces
    Proof("ProtectProc=invisible", "other processes", False, True, (USER,)),
    Proof("ProcSubset=all", "processor's features", True, "ENOENT", instead="ProcSubset=pid"),
    Proof("ProtectClock=yes", "clock", "EPERM"),
    Proof("ProtectControlGroups=yes", "control group", "EROFS"),
    Proof("ProtectHostname=yes", "host name", "EPERM"),
    Proof("ProtectKernelLogs=yes", "kernel log", "EPERM"),
    Proof("ProtectKernelModules=yes", "kernel modules", "EACCES", alone="ENOENT"),
    Proof("ProtectKernelModules=yes", "unload a module", "EPERM", OTHER),
    Proof("ProtectKernelTunables=yes", "kernel tunable", "EACCES", alone="EROFS"),
    Proof("KeyringMode=private", "session keyring", "_ses", OTHER, instead="KeyringMode=inherit"),
    Proof("LockPersonality=yes", "personality", "EPERM"),
    Proof("PrivateIPC=yes", "message queue", "ENOENT"),
    Proof("RestrictNamespaces=yes", "user namespace", "EPERM"),
    Proof("RestrictRealtime=yes", "realtime", "EPERM", "EINVAL"),
    Proof("SystemCallArchitectures=native", "foreign system call", "SIGSYS"),
    Proof(FILTER, "trace", "EPERM", True, (ERRNO,)),
    Proof("SystemCallFilter=~@privileged", "own chown", "EPERM", True, (ERRNO,)),
    Proof(ERRNO, "trace", "EPERM", "SIGSYS", (FILTER,)),
]
GPU_PROOFS = [
    Proof("PrivateDevices=no", "device", True, "ENOENT", instead="PrivateDevices=yes"),
    Proof("DevicePolicy=closed", "device off the list", "EPERM"),
]
ELSEWHERE = {
    "RemoveIPC=yes": "test_nothing_stays_in_shared_memory",
    "DeviceAllow=char-nvidia* rw": "test_gpus_are_let_in",
}
# Start, stop and restart: test_service.py.
LIFE = {
    *(
        "Type",
        "NotifyAccess",
        "ExecStart",
        "ExecReload",
        "TimeoutStartSec",
        "TimeoutStopSec",
        "WatchdogSec",
        "KillMode",
    ),
    *("OOMPolicy", "Restart", "RestartSec", "RestartPreventExitStatus"),
}
CONTROLLERS = {"tasks": "pids", "memory limited": "memory"}  # probe: what of the kernel's must be there
NEEDS = {
    "choice of cores": None,
    "memory file": True,
    "group of a new folder": True,
    "claim": True,
    "who is connected": [True, False],
    "compiled code": "64 2",
}


def service_lines(file):
    """The lines of the section [Service] of a unit or drop-in."""
    section = file.read_text().split("[Service]\n")[1].split("\n[")[0]
    return [line for line in section.splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def outside():
    """Somebody who could be reached if the network were shared."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        address = f"whisperd-test-{os.getpid()}"
        listener.bind("\0" + address)
        listener.listen(100)
        yield address


@pytest.fixture(scope="module")
def lab(_bootable, outside):
    """A machine with the spool, and with things beside it that the service must not reach."""
    with SystemdLab(program_binds()) as lab:
        provide_program(lab)
        lab.run("systemd-sysusers", CLONE / "systemd/whisperd.sysusers")
        lab.run("systemd-tmpfiles", "--create", CLONE / "systemd/whisperd.tmpfiles")
        queue = f"import ctypes; ctypes.CDLL(None).msgget({sandbox_probe.MESSAGE_QUEUE}, 0o1666)"
        lab.run(
            *("sh", "-ec"),
            "mkdir -p -m 777 /srv/open /home/open /var/lib/whisperd/models /var/cache/whisperd; chmod 777 /opt/whisperd"
            "; mkdir -p /usr/lib/modules/lab; mknod -m 666 /dev/lab-null c 1 3; mknod -m 666 /dev/lab-kmsg c 1 11"
            "; install -m 4755 /usr/bin/id /srv/open/id; install -m 600 /dev/null /srv/open/private"
            "; mkdir -p /run/systemd/sessions; printf 'UID=4711\\nREMOTE=1\\n' >/run/systemd/sessions/lab"
            "; touch /home/open/file /tmp/of-others /srv/open/of-root /var/spool/whisperd/inbox/of-root"
            f"; {PREFIX}/bin/python -c '{queue}'",
        )
        lab.host_path(sandbox_probe.ADDRESS).write_text(outside)
        yield lab


def probe_command(file, *names):
    quoted = " ".join(f'"{name}"' for name in names)
    return f"{PREFIX}/bin/python {CLONE}/tests/support/sandbox_probe.py {file} {quoted}"


def try_units(lab, units):
    """Run probes, each in a unit with some lines, all at the same time; returns what came of each, in order.

    Args:
        lab: the machine.
        units: pairs of the lines of the section [Service] and the name of a probe.
    """
    folder = lab.host_path("/run/systemd/system")
    names = [f"try-{number}.service" for number in range(len(units))]
    for name, (lines, probe) in zip(names, units, strict=True):
        settings = [
            "Type=oneshot",
            f"ExecStart={probe_command('-', probe)}",
            f"StandardOutput=file:/run/{name}",
            *lines,
        ]
        (folder / name).write_text("\n".join(["[Service]", *settings]))
    lab.systemctl("daemon-reload")
    lab.systemctl("start", *names)
    answers = [json.loads(lab.host_path(f"/run/{name}").read_text())[units[n][1]] for n, name in enumerate(names)]
    for name in names:
        (folder / name).unlink()
    return answers


@pytest.fixture(scope="module")
def compared(lab):
    """What comes of each probe with its line, and without it: a pair for each proof."""
    proofs = [*PROOFS, *GPU_PROOFS]
    with_line = [((*proof.beside, proof.line), proof.probe) for proof in proofs]
    without = [((*proof.beside, proof.instead), proof.probe) for proof in proofs]
    answers = try_units(lab, with_line + without)
    return dict(zip(proofs, zip(answers[: len(proofs)], answers[len(proofs) :], strict=True), strict=True))


@pytest.fixture(scope="module")
def inside(lab):
    """What comes of the probes in the unit as install.sh sets it up, without and with access to GPUs."""
    service = Service(lab)
    service.configure()
    answers = {}
    for kind, options, needs in (("plain", (), NEEDS), ("gpu", ("--gpu",), ())):
        result = f"{service.root}/outbox/{kind}.json"
        command = probe_command(
            result, *dict.fromkeys(proof.probe for proof in [*PROOFS, *GPU_PROOFS]), "leave shared memory", *needs
        )
        service.override(Type="exec", ExecStart=f"\nExecStart={command}", WatchdogSec="0", RemainAfterExit="yes")
        service.install(*options)
        lab.wait_until("the probes are through", lambda: service.state("SubState") in {"exited", "failed"}, 60)
        answers[kind] = json.loads(lab.host_path(result).read_text())
    return answers


def identify(proof):
    return re.sub(r"[^\w=@~%]", "-", f"{proof.line[:40]}-{proof.probe}")


def skip_where_impossible(lab, proof):
    if proof.probe == "foreign system call" and platform.machine() != "x86_64":
        pytest.skip("the 32-bit system call is written for x86-64")
    controller = CONTROLLERS.get(proof.probe)
    if controller and not lab.has_controller(controller):
        pytest.skip(f"the lab has no controller {controller}")


@pytest.mark.parametrize("proof", PROOFS, ids=identify)
def test_the_unit_holds(lab, inside, proof):
    """In the whole unit the attempt ends as the line promises."""
    skip_where_impossible(lab, proof)

    assert inside["plain"][proof.probe] == proof.held


@pytest.mark.parametrize("proof", [*PROOFS, *GPU_PROOFS], ids=identify)
def test_it_is_this_line_that_holds(lab, compared, proof):
    """With this line alone the attempt ends the same way even for root; without it the outcome is another."""
    skip_where_impossible(lab, proof)
    alone, without = compared[proof]

    assert alone == (proof.held if proof.alone is None else proof.alone)
    assert without != alone
    assert proof.without in (without, OTHER)


def test_every_line_of_the_unit_is_proven():
    """A line that nothing tries fails here, and so does a proof of a line that is no more."""
    lines = [line for line in service_lines(REPOSITORY / "systemd/whisperd.service") if line.split("=")[0] not in LIFE]
    relaxed = service_lines(REPOSITORY / "systemd/gpu.conf")

    assert {*lines, *relaxed} == {proof.line for proof in [*PROOFS, *GPU_PROOFS]} | set(ELSEWHERE)
    assert set(ELSEWHERE.values()) <= set(globals())


@pytest.mark.parametrize("proof", GPU_PROOFS, ids=identify)
def test_gpus_relax_no_more_than_devices(inside, proof):
    """With access to GPUs every other attempt ends as before, and devices that are no GPU stay closed."""
    relaxed = {"device", "device off the list"}
    before, after = (
        {k: v for k, v in inside[kind].items() if k not in {*relaxed, *NEEDS}} for kind in ("plain", "gpu")
    )

    assert inside["gpu"][proof.probe] == proof.held
    assert after == before


def test_gpus_are_let_in(lab, inside):
    """The devices let in besides the harmless ones are those that systemd has understood from the drop-in."""
    assert lab.properties("whisperd.service")["DeviceAllow"] == "char-nvidia* rw"


@pytest.mark.parametrize("need", NEEDS, ids=lambda need: need.replace(" ", "-"))
def test_what_the_daemon_needs(inside, need):
    """The sandbox leaves what the daemon and the engines live on."""
    assert inside["plain"][need] == NEEDS[need]


def test_nothing_stays_in_shared_memory(lab, inside):
    """What the service left in shared memory goes with it; without RemoveIPC= it stays."""
    left = lab.host_path("/dev/shm/whisperd-probe")
    was_there = left.exists()
    lab.systemctl("stop", "whisperd.service")
    stayed = left.exists()
    try_units(lab, [((USER,), "leave shared memory")])

    assert (was_there, stayed, left.exists()) == (True, False, True)
